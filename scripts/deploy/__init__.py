"""MONAI Deploy application: a thick MR series in, the super-resolved series out (docs/deploy.md)."""
