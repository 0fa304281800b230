"""Names of a recipe turned into parts."""
