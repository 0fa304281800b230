"""What runs are worth to a study: numbers with their spread."""
