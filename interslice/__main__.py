"""`python -m interslice` is the console command `interslice`."""

from interslice.cli.main import main

if __name__ == "__main__":
    main()
