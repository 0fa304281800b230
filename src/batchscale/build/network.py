"""The network of a run: built by name, its batch norm ours, its passes in the recipe's precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from batchscale.data.examples import Splits
from batchscale.errors import RecipeError
from batchscale.models import MODELS, named_model
from batchscale.models.detectors import always_sample, freeze_batch_norm, is_detector
from batchscale.models.initial import init_last_linear, zero_last_gammas
from batchscale.models.library import is_library_name
from batchscale.models.pretrained import load_pretrained
from batchscale.models.taking import AXES, inputs_of
from batchscale.randomness import key
from batchscale.recipe.schema import Recipe
from batchscale.system.caches import place_compiled
from batchscale.worker.batch_norm import RunningAverages, replace_batch_norm
from batchscale.worker.graphed_pass import GraphedPass
from batchscale.worker.precision import LowPrecision
from batchscale.worker.statistics import Statistics

_INIT = 200  # stream: initial weights
WEIGHTS = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.float32, "fp16": torch.float32}
"""Precision -> type of the weights, and of all sums."""
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision -> type of the passes, where it is another one."""


def build_model(recipe: Recipe, dataset: Splits, model: nn.Module | None = None) -> nn.Module:
    """The recipe's model with its initial weights, drawn from the seed; one's own module as it is.

    Raises:
        RecipeError: an option that the model has no place for.
    """
    if model is None:
        if recipe.model.name == "own":
            raise RecipeError(
                "model.name=own: stands for a module handed in from Python; use batchscale.train(..., model=...)"
            )
        _check_shape(recipe.model.name, dataset.image_shape)
        torch.manual_seed(key(recipe.seed, _INIT) >> 1)
        outputs = 1 if recipe.loss.kind == "binary" else dataset.num_classes
        model = named_model(recipe.model.name, dataset.image_shape, outputs, recipe.model.options)
        if hasattr(model, "roi_heads") and recipe.task != "detection":
            raise RecipeError(
                f"model.name={recipe.model.name}: finds objects, which task={recipe.task} does not learn; use "
                f"task=detection, or another model"
            )
    if hasattr(model, "roi_heads"):
        always_sample(model)
    if recipe.model.zero_init_last_gamma:
        zero_last_gammas(model, recipe.model.name)
    if recipe.model.fc_init is not None:
        init_last_linear(model, recipe.model.fc_init, dataset.num_classes)
    if recipe.model.pretrained is not None:
        load_pretrained(model, recipe.model.pretrained, recipe.model.pretrained_key)
        if is_detector(recipe.model.name):
            freeze_batch_norm(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise RecipeError("model: has no parameter to train; give one whose parameters require gradients")
    return model


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    needed = inputs_of(None if is_library_name(name) else MODELS[name])
    if len(shape) != AXES[needed]:
        kind = next((kind for kind, axes in AXES.items() if axes == len(shape)), "others")
        raise RecipeError(
            f"model.name={name}: needs {needed}, the data has {kind.partition(' (')[0]} {shape}; use a model for these"
        )


def lay_out(model: nn.Module, memory_format: str) -> None:
    """Lay a model's weights out as numerics.memory_format says: kernels of images (four axes), and no others."""
    if memory_format == "channels_last":
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Network:
    """A run's model, and how its passes run.

    Attributes:
        model: holds weights and averages.
        forward: what a pass calls: the model in the run's precision, compiled or captured where the recipe says so.
        eager: the same, neither compiled nor captured: for trials.
        evaluation: what an evaluation calls.
        statistics, averages: of its batch norm.
        restore: makes the model a plain module again.
    """

    model: nn.Module
    forward: nn.Module
    eager: nn.Module
    evaluation: nn.Module
    statistics: Statistics
    averages: RunningAverages
    restore: Callable[[], None]


def build_network(recipe: Recipe, dataset: Splits, device: torch.device, own_model: nn.Module | None = None) -> Network:
    """The recipe's network on a device, ready for passes of whole workers.

    Args:
        recipe, dataset: of the run.
        device: of the weights.
        own_model: one's own module, trained in place.

    Raises:
        RecipeError: an option that the model has no place for.
    """
    place_compiled()
    dtype = WEIGHTS[recipe.precision]
    model = build_model(recipe, dataset, own_model).to(device=device, dtype=dtype)
    lay_out(model, recipe.numerics.memory_format)
    model, statistics, averages, restore = replace_batch_norm(
        model, dtype, device, recipe.batch_norm.span, recipe.batch_norm.running != "none"
    )
    compiled = model
    if recipe.numerics.compile:
        # Code of its own for every shape: for shapes in general it would hang on those that came before, so on W.
        compiled = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    forward, eager = (_in_precision(recipe, one, device) for one in (compiled, model))
    if recipe.numerics.cuda_graph:
        forward = GraphedPass(forward, statistics)
    evaluation = for_evaluation(recipe, compiled, device)
    return Network(model, forward, eager, evaluation, statistics, averages, restore)


def _in_precision(recipe: Recipe, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as a pass of the run calls it: in a low precision where the recipe has one."""
    return LowPrecision(model, LOW[recipe.precision], device) if recipe.precision in LOW else model


def for_evaluation(recipe: Recipe, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as an evaluation calls it: in the passes' precision on a GPU; on a CPU, where a low one is no faster,
    in the weights' own."""
    return model if device.type == "cpu" else _in_precision(recipe, model, device)
