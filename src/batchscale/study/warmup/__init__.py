"""With and without warmup."""
