"""A study from outside the package: which of some learning rates is best? Four files, and a line in the table."""
