"""batchscale: large-minibatch distributed SGD defined by k workers of n images, never by the hardware.

The public names are listed in ``__all__`` and loaded when first used, so that ``import batchscale`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchscale.aggregate import ExactAggregator as ExactAggregator
    from batchscale.aggregate import FastAggregator as FastAggregator
    from batchscale.aggregate import NoiseScale as NoiseScale
    from batchscale.aggregate import ddp_hook as ddp_hook
    from batchscale.api import train as train
    from batchscale.comm import Reducer as Reducer
    from batchscale.comm import World as World
    from batchscale.data import Dataset as Dataset
    from batchscale.errors import BatchscaleError as BatchscaleError
    from batchscale.errors import UsageError as UsageError
    from batchscale.minibatch import Minibatch as Minibatch
    from batchscale.minibatch import StepPlan as StepPlan
    from batchscale.placement import place_workers as place_workers
    from batchscale.recipe import Recipe as Recipe
    from batchscale.recipe import load_recipe as load_recipe
    from batchscale.records import Result as Result
    from batchscale.update.adamw import AdamW as AdamW
    from batchscale.update.lamb import LAMB as LAMB
    from batchscale.update.lars import LARS as LARS
    from batchscale.update.rmsprop_warmup import RMSpropWarmup as RMSpropWarmup
    from batchscale.update.schedule import Decay as Decay
    from batchscale.update.schedule import Schedule as Schedule
    from batchscale.update.schedule import scaled_lr as scaled_lr
    from batchscale.update.sgd import SGD as SGD
    from batchscale.update.sgd import SGDLrInBuffer as SGDLrInBuffer
    from batchscale.update.sgd import decay_groups as decay_groups

__version__ = "0.1.0"

_HOME = {
    "AdamW": "update.adamw",
    "BatchscaleError": "errors",
    "Dataset": "data",
    "Decay": "update.schedule",
    "ExactAggregator": "aggregate",
    "FastAggregator": "aggregate",
    "LAMB": "update.lamb",
    "LARS": "update.lars",
    "Minibatch": "minibatch",
    "NoiseScale": "aggregate",
    "RMSpropWarmup": "update.rmsprop_warmup",
    "Recipe": "recipe",
    "Reducer": "comm",
    "Result": "records",
    "SGD": "update.sgd",
    "SGDLrInBuffer": "update.sgd",
    "Schedule": "update.schedule",
    "StepPlan": "minibatch",
    "UsageError": "errors",
    "World": "comm",
    "ddp_hook": "aggregate",
    "decay_groups": "update.sgd",
    "load_recipe": "recipe",
    "place_workers": "placement",
    "scaled_lr": "update.schedule",
    "train": "api",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"batchscale.{_HOME[name]}"), name)
    if name == "measure":  # batchscale.measure.curvature(model, data): functions by the names of what they measure
        return importlib.import_module("batchscale.measure")
    raise AttributeError(f"module 'batchscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
