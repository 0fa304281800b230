"""One worker's gradient: loss, passes, batch norm in groups of n, random modules by (seed, step, worker)."""
