"""Gradients of k workers -> one gradient: a SUM over all workers, never a mean (each was divided by kn at its root)."""

from batchscale.aggregate.exact import ExactAggregator
from batchscale.aggregate.fast import FastAggregator

__all__ = ["ExactAggregator", "FastAggregator"]
