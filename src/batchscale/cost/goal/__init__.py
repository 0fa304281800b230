"""Data to a goal against the minibatch."""
