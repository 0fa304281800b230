"""A run's life: folder, lock, attempts, result."""
