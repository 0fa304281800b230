"""Steps to a target error against the minibatch: search, curve, regimes, hyperbola (Shallue et al. 2018)."""
