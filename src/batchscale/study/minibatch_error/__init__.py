"""Error against minibatch."""
