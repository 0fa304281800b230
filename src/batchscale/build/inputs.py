"""What a run reads: its data set, the normalisation of its images, the feed of its passes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscale.build.examples import told_of_examples
from batchscale.build.network import WEIGHTS
from batchscale.build.planning import recompute_examples, share_of
from batchscale.build.trunk import Trunk
from batchscale.data import DATASETS, OwnData, Reading, open_dataset
from batchscale.data.augmentation import Augmentation
from batchscale.data.contents import Contents
from batchscale.data.examples import Examples, Splits, TensorExamples
from batchscale.data.feed import Feed, Normalizer
from batchscale.data.folders.nvjpeg import DecodedOnDevice
from batchscale.data.folders.stored import StoredImages
from batchscale.data.map_style import MapExamples
from batchscale.data.masks.sized import SizedPairs
from batchscale.data.own import own_splits
from batchscale.data.readings import DecodersAre
from batchscale.errors import DataError, ExactnessError, RecipeError
from batchscale.launch.hardware import may_use_gpu, own_cores
from batchscale.minibatch import StepPlan
from batchscale.order import StreamOrder
from batchscale.randomness import key, shuffled
from batchscale.recipe.data import Data
from batchscale.recipe.schema import Recipe
from batchscale.structure import tensors
from batchscale.training.noise_scale import measured_after

_HOLDOUT = 201  # stream: one order of all training images, held-out ones from its start, trained ones from its end
_RECOMPUTE = 202  # stream: the order of the examples that batch norm's statistics are recomputed over


def load_data(recipe: Recipe, folder: Path | None, own_data: OwnData | None = None, listing: Any = None) -> Splits:
    """The recipe's data set: data.train_images or data.train_fraction of it, data.holdout others as the test set.

    Args:
        recipe: resolved.
        folder: of the data sets.
        own_data: one's own data set; None for the recipe's.
        listing: of the same data set, from ``Splits.listing``; None to look through the folders.

    Raises:
        DataError: files are missing or damaged, or more images are held out or trained on than there are.
    """
    dataset = _read_data(recipe, folder, own_data, listing)
    _check_drawn(recipe, dataset)
    augment = recipe.data.augment
    if (augment.flip or augment.crop != "none") and not dataset.train.raw:
        raise DataError("data.augment: acts on uint8 images (C, H, W), the data is floating; leave data.augment out")
    if augment.flip or augment.crop != "none":
        dataset.train.check_augmented(crops=augment.crop == "padded")
    if augment.crop == "padded" and augment.padding > min(dataset.image_shape[1:]):
        raise DataError(
            f"data.augment.padding={augment.padding}: must not exceed the image, {dataset.image_shape[1:]}; lower it"
        )
    return dataset


def data_at_hand(recipe: Recipe, folder: Path | None, own_data: OwnData | None = None) -> Contents:
    """What the data are that a finished run is asked for with; nothing is known of those that cannot be opened."""
    try:
        return load_data(recipe, folder, own_data).contents
    except DataError as error:
        print(f"finished before, and not compared with the data at hand: {error}", file=sys.stderr, flush=True)
        return {}


def _read_data(recipe: Recipe, folder: Path | None, own_data: OwnData | None, listing: Any) -> Splits:
    if own_data is None and recipe.data.name == "own":
        raise DataError(
            "data.name=own: stands for a data set handed in from Python; use batchscale.train(..., data=...)"
        )
    if own_data is not None:
        _check_masks(recipe)
        splits = own_splits(own_data, recipe.data.classes, _decoders(recipe), recipe.task)
    else:
        splits = open_dataset(recipe.data.name, folder, reading_of(recipe, listing))
    with told_of_examples(recipe):
        return _parted(splits, recipe.data)


def _check_masks(recipe: Recipe) -> None:
    """Raise where one's own data are to be read with masks: they are as they are; a detector may learn theirs."""
    masks = recipe.data.masks
    if masks is not None and (recipe.task, masks) != ("detection", "instances"):
        raise DataError(
            f"data.masks={masks}: says how masks are read from files, and data of one's own are taken as they are; "
            f"leave it out"
        )


def _check_drawn(recipe: Recipe, dataset: Splits) -> None:
    """Raise where the items of one's own Dataset will not do.

    Raises:
        DataError: uint8 images whose moments would differ from process to process, or augmentation of drawn items.
        ExactnessError: exact mode, and items that hang on more than their keys.
    """
    parts = [part for part in (dataset.train, dataset.test) if isinstance(part, MapExamples)]
    warnings = [part.warning for part in parts if part.warning]
    if warnings and (recipe.numerics.exact or dataset.train.raw):
        rule = "exact mode promises equal bits" if recipe.numerics.exact else "uint8 images are normalised by their own"
        raise (ExactnessError if recipe.numerics.exact else DataError)(
            f"data: {warnings[0].removeprefix('warning: ')}; {rule}: draw from random, numpy.random or torch's default "
            f"generator in __getitem__, or make a generator there, seeded from one of them"
        )
    augment = recipe.data.augment
    if isinstance(dataset.train, MapExamples) and (augment.flip or augment.crop != "none"):
        raise DataError(
            "data.augment: acts on images in memory and on disk; a Dataset of one's own augments its items itself, in "
            "__getitem__, keyed by (seed, epoch, item); leave data.augment out"
        )


def _parted(dataset: Splits, data: Data) -> Splits:
    """The images trained on and those held out, both by one order that hangs on no seed: larger parts hold smaller."""
    held, total, wanted = data.holdout, len(dataset.train), data.train_images
    if held >= total:
        raise DataError(f"data.holdout={held}: must be below the {total} training images; lower it")
    if wanted is not None and wanted > total - held:
        left = f" that data.holdout={held} leaves of {total}" if held else ""
        raise DataError(
            f"data.train_images={wanted}: must not exceed the {total - held} training images{left}; lower it"
        )
    trained = wanted or share_of(data.train_fraction, total - held)
    if trained == total:
        return dataset
    order = shuffled(key(_HOLDOUT), np.arange(total), total)
    inside, outside = np.sort(order[total - trained :]), np.sort(order[:held])
    test = dataset.train.select(outside).whole() if held else dataset.test
    return replace(dataset, train=dataset.train.select(inside), test=test)


def examples_to_recompute(recipe: Recipe, dataset: Splits, per_worker: int) -> Examples:
    """The first M training images of one order that hangs on no seed and no step: every run is measured alike."""
    total = len(dataset.train)
    wanted = recompute_examples(recipe, total, per_worker)
    return dataset.train.select(shuffled(key(_RECOMPUTE), np.arange(wanted), total))


def reading_of(recipe: Recipe, listing: Any = None) -> Reading:
    """How the recipe's data are read."""
    data = recipe.data
    return Reading(
        data.augment.size or Reading.size,
        Path(data.subset) if data.subset else None,
        data.skip_bad,
        _decoders(recipe),
        data.labels,
        data.masks,
        data.classes,
        data.tokens,
        data.sequence,
        data.test_share,
        data.augment.size,
        data.resize,
        _who_decodes(recipe),
        listing,
    )


def _decoders(recipe: Recipe) -> int:
    """Threads that decode images, or processes that draw items."""
    threads = recipe.execution.decode_threads
    return own_cores() if threads == "auto" else threads


def _who_decodes(recipe: Recipe) -> DecodersAre:
    """Of ``auto``: processes beside a GPU, where there are several."""
    decoders = recipe.execution.decoders
    if decoders != "auto":
        return decoders
    return "processes" if may_use_gpu(recipe) and _decoders(recipe) > 1 else "threads"


def make_normalizer(recipe: Recipe, dataset: Splits, own_data: bool, device: torch.device) -> Normalizer:
    """What turns images into the model's inputs; an own data set's mean and deviation are taken from its images."""
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    if not dataset.train.raw:
        mean, std = [0.0], [1.0]
    elif isinstance(dataset.train, MapExamples):
        mean, std = _moments(dataset.train.sample())
    else:
        source = None if own_data or recipe.data.name == "own" else DATASETS[recipe.data.name]
        if isinstance(dataset.train, TensorExamples) and (source is None or not source.mean):
            mean, std = _moments(dataset.train)
        elif isinstance(dataset.train, SizedPairs) and source is not None and not source.mean:
            mean, std = dataset.train.moments()
        elif source is None:
            raise DataError(
                "data: examples of one's own kind give raw bytes, and what these are normalised by is not known; give "
                "floats (raw = False), or TensorExamples"
            )
        else:
            mean, std = list(source.mean), list(source.std)
    return Normalizer(mean, std, WEIGHTS[recipe.precision], formats[recipe.numerics.memory_format], device)


def _moments(examples: TensorExamples) -> tuple[list[float], list[float]]:
    """Mean and deviation of every channel of the images.

    Raises:
        DataError: other uint8 inputs stand beside the images, and are not of their kind: one normaliser acts on all.
    """
    images = examples.picture
    assert images is not None
    for tensor in tensors(examples.inputs):
        if tensor.dtype == torch.uint8 and (tensor.ndim != 4 or tensor.shape[1] != images.shape[1]):
            raise DataError(
                f"data: uint8 inputs {tuple(tensor.shape)} beside images {tuple(images.shape)}: uint8 is normalised as "
                f"these images are, channel by channel; give what is no such image as int64 or as floats"
            )
    channels = [images[:, c].double() for c in range(images.shape[1])]
    return [float(c.mean()) for c in channels], [float(c.std(correction=0)) or 1.0 for c in channels]


def make_feed(
    recipe: Recipe,
    dataset: Splits,
    normalizer: Normalizer,
    plan: StepPlan,
    order: StreamOrder,
    workers: Callable[[int], range],
    micro_batch: int,
    span: int,
    resident: TensorExamples | None = None,
) -> Feed:
    """The passes of this process's workers, step by step.

    Args:
        recipe, dataset, normalizer, plan, order: of the run.
        workers: k -> the numbers of this process's workers.
        micro_batch: images of one pass at most.
        span: workers that a pass never parts.
        resident: the training examples on the device, where they are kept there.
    """
    augment = recipe.data.augment

    # The noise scale needs two gradients of a step; of several processes each has one at least.
    def fewest_passes(step: int) -> int:
        if not measured_after(step, recipe.noise_scale_steps):
            return 1
        count = plan.minibatch_at(step).workers
        return 2 if workers(count) == range(count) else 1

    images = dataset.train
    if recipe.data.decode == "nvjpeg" and isinstance(images, StoredImages) and normalizer.device.type == "cuda":
        images = DecodedOnDevice(images, normalizer.device)
    return Feed(
        images,
        plan=plan, workers=workers, micro_batch=micro_batch, order=order, normalizer=normalizer,
        augmentation=Augmentation(augment.flip, padding_of(recipe), augment.crop == "scale-aspect"), span=span,
        fewest_passes=fewest_passes, resident=resident,
    )  # fmt: skip


def check_decoder(recipe: Recipe) -> None:
    """Raise where data.decode names a decoder that this machine does not have."""
    if recipe.data.decode == "nvjpeg" and not may_use_gpu(recipe):
        raise RecipeError("data.decode=nvjpeg: needs a GPU, and there is none here; use data.decode=libjpeg")


def padding_of(recipe: Recipe) -> int:
    """Pixels on each side that training images are padded by."""
    augment = recipe.data.augment
    return augment.padding if augment.crop == "padded" else 0


def order_of(recipe: Recipe, plan: StepPlan, trunk: Trunk | None) -> StreamOrder:
    """The order of the run's stream."""
    if trunk is None:
        return StreamOrder(recipe.seed, plan.training_images)
    trunk_plan = trunk.plan(plan.training_images)
    epoch = trunk_plan.epoch_at(trunk.step)
    place = int((epoch - int(epoch)) * plan.training_images)
    return order_of(trunk.recipe, trunk_plan, trunk.trunk).branch(int(epoch), place, recipe.branch.seed)
