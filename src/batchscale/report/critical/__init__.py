"""The critical minibatch of one recipe, measured in up to three ways, side by side."""
