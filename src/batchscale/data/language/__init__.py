"""Text as sequences of tokens."""
