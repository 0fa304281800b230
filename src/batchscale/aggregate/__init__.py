"""Gradients of k workers -> one gradient: a SUM over all workers, never a mean (each was divided by kn at its root)."""

from batchscale.aggregate.exact import ExactAggregator
from batchscale.aggregate.fast import FastAggregator
from batchscale.aggregate.hook import ddp_hook

__all__ = ["ExactAggregator", "FastAggregator", "ddp_hook"]
