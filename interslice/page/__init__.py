"""The local page: reconstruct a scan from a browser, on this machine alone (docs/page.md)."""
