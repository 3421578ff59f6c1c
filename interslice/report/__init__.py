"""Results judged and shown: metrics, pictures, and the page for the browser."""
