"""The net of a recipe, counted layer by layer without its data: the table that a plan reads.

What examples look like is known of the shipped data sets; of others it is read from the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchscale.build.examples import examples_of
from batchscale.build.inputs import load_data
from batchscale.build.layers import LayerCounts, counted_pass
from batchscale.build.network import build_model
from batchscale.build.tasks import make_task
from batchscale.data.examples import Examples, Splits
from batchscale.data.source import Reading
from batchscale.models.taking import AXES, VOLUMES
from batchscale.recipe import Recipe
from batchscale.task import Task

_FEWER, _MORE = 2, 4
"""Examples of the two passes: batch norm cannot do with one where its channels have no pixels."""
_FEWER_REAL, _MORE_REAL = 1, 2
"""Of a detector, whose images are real and take gigabytes; its maps always have pixels."""
_BOXES = 128
"""Of an image of detection: as many as its heads sample, so that they are full, as those of a trained net are."""


@dataclass(frozen=True)
class Form:
    """What examples of a data set look like.

    Args:
        shape: of one.
        classes: of the data set.
        examples: trained on in an epoch; None where that is not known before the data are read.
        tokens: data.tokens -> how many are trained on, of a text, which is cut into sequences.
    """

    shape: tuple[int, ...]
    classes: int
    examples: int | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)


FORMS = {
    "digits": Form((1, 8, 8), 10, 1437),
    "mnist": Form((1, 28, 28), 10, 60_000),
    "fashion_mnist": Form((1, 28, 28), 10, 60_000),
    "cifar10": Form((3, 32, 32), 10, 50_000),
    "cifar100": Form((3, 32, 32), 100, 50_000),
    "digits_scenes": Form((1, 32, 32), 11, 800),
    "digits_scenes_labels": Form((1, 32, 32), 10, 800),
    "digits_scenes_detection": Form((1, 64, 64), 11, 800),
    "nuclei": Form((1, 256, 256), 2, 268),
    "deepcam_made_up": Form((16, 48, 72), 3, 128),
    "bccd": Form((3, 480, 640), 4, 292),
    "coco": Form((3, 480, 640), 91, 118_287),  # the most frequent size of train2017
    "imagenet": Form((3, 224, 224), 1000, 1_281_167),
    "shakespeare": Form((), 65, tokens={"characters": 1_003_855, "bytes": 1_003_855}),
    "topics": Form((), 256),  # as long as Python's own texts are: another length with every version
}
"""Data set -> its form; a test compares those that are at hand."""


def form_of(recipe: Recipe, folder: Path | None = None) -> Form:
    """What a recipe's examples look like.

    Args:
        recipe: resolved.
        folder: of the data sets, for one whose form is not known.

    Raises:
        DataError: it is not known, and the data cannot be read.
    """
    form, data = FORMS.get(recipe.data.name), recipe.data
    if form is None:
        dataset = load_data(recipe, folder)
        return Form(dataset.image_shape, dataset.num_classes, len(dataset.train))
    shape, examples = form.shape, form.examples
    if data.sequence is not None:
        shape = (data.sequence,)
        tokens = form.tokens.get(data.tokens) if data.test_share == Reading.test_share else None
        examples = None if tokens is None else (tokens - 1) // data.sequence  # the last one has no next
    elif data.resize is not None:
        shape = (shape[0], *data.resize)
    elif data.augment.size is not None:
        shape = (shape[0], data.augment.size, data.augment.size)
    classes = 256 if data.tokens == "bytes" else form.classes
    whole = data.train_images is None and data.train_fraction == 1 and not data.holdout and data.subset is None
    return Form(shape, classes, examples if whole else None)


def count_net(recipe: Recipe, form: Form, own_model: nn.Module | None = None) -> dict[str, Any]:
    """Every layer's operations, bytes and trained numbers, as the JSON of a table.

    Args:
        recipe: of the net and the task.
        form: of its examples.
        own_model: one's own module in place of the recipe's.

    Raises:
        RecipeError: a layer that cannot be counted; names it.
    """
    device = torch.device("cpu" if recipe.task == "detection" else "meta")
    part = _Shaped(form.shape)
    splits = Splits(recipe.data.name, part, part, form.classes)
    with torch.random.fork_rng(devices=[]):
        task = make_task(recipe, splits)
        entry = recipe.model.model_copy(update={"pretrained": None, "pretrained_key": None})
        with device:
            model = build_model(recipe.model_copy(update={"model": entry}), splits, own_model).train().to(device)
        sizes = (_FEWER_REAL, _MORE_REAL) if device.type == "cpu" else (_FEWER, _MORE)
        fewer, more = (_counted(model, task, form, examples, device) for examples in sizes)
    unit = "volumes" if len(form.shape) == AXES[VOLUMES] else examples_of(recipe)
    named = {"name": recipe.model.name, "unit": unit, "shape": list(form.shape)}
    return named | {"examples": form.examples} | _table(model, sizes, fewer, more)


class _Shaped(Examples):
    """Examples of which nothing is known but their shape."""

    raw = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 1

    def part(self, part: slice) -> Any:
        raise NotImplementedError

    augmented = select = digests = part  # type: ignore[assignment]


def _counted(
    model: nn.Module, task: Task, form: Form, examples: int, device: torch.device
) -> Mapping[str, LayerCounts]:
    """Of one pass."""
    with device:
        inputs, targets = _MADE_UP[task.name](form, examples)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)  # a detector samples proposals
    return counted_pass(model, lambda: task.train_pass(model, inputs, targets)[0])


def _of_classes(form: Form, examples: int) -> Any:
    return torch.zeros(examples, *form.shape), torch.zeros(examples, dtype=torch.int64)


def _of_labels(form: Form, examples: int) -> Any:
    return torch.zeros(examples, *form.shape), torch.zeros(examples, form.classes, dtype=torch.uint8)


def _of_masks(form: Form, examples: int) -> Any:
    return torch.zeros(examples, *form.shape), torch.zeros(examples, *form.shape[1:], dtype=torch.uint8)


def _of_tokens(form: Form, examples: int) -> Any:
    return torch.zeros(examples, *form.shape, dtype=torch.int64), torch.zeros(examples, *form.shape, dtype=torch.int64)


def _of_boxes(form: Form, examples: int) -> Any:
    _, height, width = form.shape
    places = torch.arange(_BOXES)
    left, top = places % 16 * (width / 17), places // 16 * (height / 9)
    target = {
        "boxes": torch.stack([left, top, left + width / 17, top + height / 9], 1),
        "labels": torch.ones(_BOXES, dtype=torch.int64),
        "masks": torch.zeros(_BOXES, height, width, dtype=torch.uint8),
    }
    return [torch.rand(form.shape) for _ in range(examples)], [target] * examples


_MADE_UP = {
    "classification": _of_classes,
    "multilabel": _of_labels,
    "segmentation": _of_masks,
    "language": _of_tokens,
    "detection": _of_boxes,
}


def _table(
    model: nn.Module, sizes: tuple[int, int], fewer: Mapping[str, LayerCounts], more: Mapping[str, LayerCounts]
) -> dict[str, Any]:
    """What grows with the examples is an example's, what does not is a pass's."""
    layers = list(more)
    rows: dict[str, list[int]] = {}
    for column in ("forward_flops", "backward_flops", "forward_bytes", "backward_bytes", "kept_bytes"):
        pairs = [(getattr(fewer.get(layer, LayerCounts()), column), getattr(more[layer], column)) for layer in layers]
        each = [(b - a) / (sizes[1] - sizes[0]) for a, b in pairs]
        rows[column] = [round(max(value, 0)) for value in each]
        if column in ("forward_bytes", "backward_bytes"):
            fixed = [a - sizes[0] * value for (a, _), value in zip(pairs, each, strict=True)]
            rows[column.replace("bytes", "fixed_bytes")] = [round(max(value, 0)) for value in fixed]
    rows["parameters"] = _parameters(model, layers)
    return {"layers": [layer or "loss" for layer in layers], **rows}


def _parameters(model: nn.Module, layers: list[str]) -> list[int]:
    """Trained numbers of each layer; those of a module that computes nothing itself lie with the one around it."""
    numbers = dict.fromkeys(layers, 0)
    holders: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            layer = name.rpartition(".")[0]
            while layer and layer not in numbers:
                layer = layer.rpartition(".")[0]
            holders.setdefault(id(parameter), []).append(layer if layer in numbers else layers[-1])
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    for number, names in holders.items():
        numbers[min(names, key=layers.index)] += sizes[number]  # a shared one's gradient is whole where it is met first
    return list(numbers.values())
