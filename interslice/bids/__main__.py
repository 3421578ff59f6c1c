"""`python -m interslice.bids`: see interslice.bids.options."""

import sys

from interslice.bids.options import read
from interslice.files.last_words import plain_endings

if __name__ == "__main__":
    with plain_endings("--skip_finished leaves out what is finished"):
        read(sys.argv[1:])  # --help and --version end here, before what takes seconds to import
        from interslice.bids.app import main

        main()
