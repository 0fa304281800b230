"""Gradients of k workers -> one gradient: a SUM over all workers, never a mean (each was divided by kn at its root)."""

from batchscale.aggregate.exact import ExactAggregator
from batchscale.aggregate.fast import FastAggregator
from batchscale.aggregate.hook import ddp_hook
from batchscale.aggregate.noise_scale import NoiseScale

__all__ = ["ExactAggregator", "FastAggregator", "NoiseScale", "ddp_hook"]
