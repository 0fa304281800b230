"""Gradients of k workers -> one gradient: a SUM over all workers, never a mean (each was divided by kn at its root)."""

from batchscale.aggregate.exact import ExactAggregator
from batchscale.aggregate.fast import FastAggregator

AGGREGATORS = {"fast": FastAggregator, "exact": ExactAggregator}
"""Every way to sum: the same seam, ``for _ in attempts(): (backward of each pass; add())``."""

__all__ = ["AGGREGATORS", "ExactAggregator", "FastAggregator"]
