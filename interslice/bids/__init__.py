"""BIDS data sets in and out: `python -m interslice.bids bids_dir output_dir participant`."""
