"""report.html: one case on one page."""
