"""Official files: fetched, checked, named."""
