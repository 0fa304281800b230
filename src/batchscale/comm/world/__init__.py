"""The world of W processes."""
