"""The noise scale tr S / |G|^2 of a state, over a stated set of examples."""
