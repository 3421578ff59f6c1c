"""BIDS data sets in and out: `interslice bids bids_dir output_dir participant`."""
