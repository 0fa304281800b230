"""Branches of a trunk at several minibatches: the largest without loss, and half efficiency (Merrill et al. 2025)."""
