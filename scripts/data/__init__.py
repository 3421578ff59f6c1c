"""Making of the embedded samples and of training data."""
