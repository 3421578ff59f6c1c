"""`interslice doctor`, for a checkout that is not installed: checks the installation in under a minute.

python -m scripts.doctor
python -m scripts.doctor --device cuda
"""

from __future__ import annotations

from interslice.cli.doctor import main
from interslice.files.last_words import plain_endings

if __name__ == "__main__":
    with plain_endings():
        main()
