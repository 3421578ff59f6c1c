"""MONAI Deploy application: a thick MR series in, the super-resolved series out (docs/how_to/deploy.md)."""
