"""A series from an archive (PACS) over DICOMweb, and the result back to it."""
