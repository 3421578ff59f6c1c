"""Raw data of CT scanners: projections as published data sets hold them, with the geometry in their headers."""
