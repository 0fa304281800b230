"""Images: files, folders, and packed forms."""
