"""`python -m interslice.bids`: see interslice.bids.app."""

from interslice.bids.app import main
from interslice.files.last_words import plain_endings

if __name__ == "__main__":
    with plain_endings("--skip_finished leaves out what is finished"):
        main()
