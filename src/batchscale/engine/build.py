"""Names of a recipe turned into parts: data, model, aggregator, optimizer, schedule, the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.comm import Reducer, World
from batchscale.data import DATASETS, Dataset, Reading, open_dataset
from batchscale.data.feed import Feed, Normalizer
from batchscale.data.images import Augmentation, Splits, TensorImages
from batchscale.engine.algorithm import check_algorithm, decide, make_reducer
from batchscale.engine.derive import plan_of, schedule_of
from batchscale.engine.hardware import choose_threads, host_threads
from batchscale.engine.optimizer import build_optimizer
from batchscale.engine.step import TrainingStep
from batchscale.engine.trial import MicroBatchTrial
from batchscale.errors import DataError, ExactnessError, RecipeError
from batchscale.minibatch import Minibatch, place_workers
from batchscale.models import MODELS
from batchscale.models.resnet import BasicBlock
from batchscale.randomness import key, shuffled
from batchscale.recipe.schema import Recipe
from batchscale.update.ema import AveragedWeights
from batchscale.update.optimizers import Optimizer
from batchscale.worker.batch_norm import Statistics, replace_batch_norm
from batchscale.worker.gradient import Probe
from batchscale.worker.noise import GradientNoise
from batchscale.worker.precision import LossScale, LowPrecision

_INIT, _HOLDOUT = 200, 201  # streams: initial weights, held-out images
_DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.float32, "fp16": torch.float32}  # of weights
_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of passes


def load_data(recipe: Recipe, folder: Path | None, own: Dataset | None = None) -> Splits:
    """The recipe's data set, with its held-out part in place of the test set when data.holdout asks for one.

    Raises:
        DataError: files are missing or damaged, or more images are held out than there are.
    """
    dataset = _read_data(recipe, folder, own)
    augment = recipe.data.augment
    if (augment.flip or augment.crop != "none") and not dataset.train.raw:
        raise DataError("data.augment: acts on uint8 images (C, H, W), the data is floating; leave data.augment out")
    if augment.crop == "padded" and augment.padding > min(dataset.image_shape[1:]):
        raise DataError(
            f"data.augment.padding={augment.padding}: must not exceed the image, {dataset.image_shape[1:]}; lower it"
        )
    return dataset


def _read_data(recipe: Recipe, folder: Path | None, own: Dataset | None) -> Splits:
    if own is None and recipe.data.name == "own":
        raise DataError(
            "data.name=own: stands for a data set handed in from Python; use batchscale.train(..., data=...)"
        )
    dataset = own.splits() if own else open_dataset(recipe.data.name, folder, _reading(recipe))
    held, total = recipe.data.holdout, len(dataset.train)
    if not held:
        return dataset
    if held >= total:
        raise DataError(f"data.holdout={held}: must be below the {total} training images; lower it")
    order = shuffled(key(_HOLDOUT), np.arange(total), total)
    inside, outside = np.sort(order[held:]), np.sort(order[:held])
    return replace(dataset, train=dataset.train.select(inside), test=dataset.train.select(outside))


def _reading(recipe: Recipe) -> Reading:
    data, threads = recipe.data, recipe.execution.decode_threads
    return Reading(
        data.augment.size or Reading.size,
        Path(data.subset) if data.subset else None,
        data.skip_bad,
        host_threads() if threads == "auto" else threads,
    )


def build_model(recipe: Recipe, dataset: Splits, own: nn.Module | None = None) -> nn.Module:
    """The recipe's model with its initial weights, drawn from the seed; one's own module as it is.

    Raises:
        RecipeError: an option that the model has no place for.
    """
    if own is None:
        if recipe.model.name == "own":
            raise RecipeError(
                "model.name=own: stands for a module handed in from Python; use batchscale.train(..., model=...)"
            )
        if len(dataset.image_shape) != 3:
            raise RecipeError(
                f"model.name={recipe.model.name}: needs images (C, H, W), the data has {dataset.image_shape}"
            )
        torch.manual_seed(key(recipe.seed, _INIT) >> 1)
        own = MODELS[recipe.model.name](dataset.image_shape, dataset.num_classes)
    if recipe.model.zero_init_last_gamma:
        gammas = [m.last_gamma() for m in own.modules() if isinstance(m, BasicBlock)]
        if not gammas:
            raise RecipeError(
                f"model.zero_init_last_gamma=true: model {recipe.model.name} has no residual blocks; leave it out"
            )
        for gamma in gammas:
            nn.init.zeros_(gamma)
    if not any(p.requires_grad for p in own.parameters()):
        raise RecipeError("model: has no parameter to train; give one whose parameters require gradients")
    return own


@dataclass
class Parts:
    """All that a run is made of, on one process."""

    recipe: Recipe
    world: World
    dataset: Splits
    model: nn.Module
    step: TrainingStep
    optimizer: Optimizer
    aggregator: FastAggregator | ExactAggregator
    normalizer: Normalizer
    decided: dict[str, Any]
    make_feed: Callable[[], Feed]
    restore: Callable[[], None]

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run's state by name: live ones, loaded by copying into them."""
        return {
            **{f"model.{n}": t for n, t in self.model.state_dict().items()},
            **{f"optimizer.{n}": t for n, t in self.optimizer.state().items()},
            **{f"aggregate.{n}": t for n, t in self.aggregator.state().items()},
            **{f"loss_scale.{n}": t for n, t in self.step.loss_scale.state().items()},
        }

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a run leaves: "weights", and "weights_ema" where they were averaged."""
        found = {"weights": self.model.state_dict()}
        if isinstance(self.optimizer, AveragedWeights):
            found["weights_ema"] = self.optimizer.averaged()
        return found

    def evaluated(self) -> AbstractContextManager[None]:
        """While it is open, the model holds the weights to be evaluated: the averaged ones where there are such."""
        return self.optimizer.in_place() if isinstance(self.optimizer, AveragedWeights) else nullcontext()

    def close(self) -> None:
        """Leave the model as a plain module again."""
        self.aggregator.close()
        self.restore()


def _normalizer(recipe: Recipe, dataset: Splits, own: bool, device: torch.device) -> Normalizer:
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    if not dataset.train.raw:
        mean, std = [0.0], [1.0]
    elif isinstance(dataset.train, TensorImages) and (own or recipe.data.name == "own"):
        images = dataset.train.images
        sums = [images[:, c].double() for c in range(images.shape[1])]
        mean, std = [float(s.mean()) for s in sums], [float(s.std(correction=0)) or 1.0 for s in sums]
    else:
        source = DATASETS[recipe.data.name]
        mean, std = list(source.mean), list(source.std)
    return Normalizer(mean, std, _DTYPES[recipe.precision], formats[recipe.numerics.memory_format], device)


def _aggregator(
    recipe: Recipe, model: nn.Module, statistics: Statistics, reducer: Reducer
) -> FastAggregator | ExactAggregator:
    extras = {"loss": [1], "statistics": statistics.chunks}
    parameters = list(model.parameters())
    if recipe.numerics.exact:
        return ExactAggregator(parameters, recipe.minibatch.workers, reducer, extras, ["stop"])
    bucket_bytes = int(recipe.execution.aggregation.bucket_megabytes * 2**20)
    return FastAggregator(parameters, reducer, extras, ["stop"], bucket_bytes)


def _micro_batch(
    recipe: Recipe, world: World, workers: range, trial: MicroBatchTrial, draws_random: bool, before: int | None
) -> int:
    """Images of one pass: as the recipe says, as an earlier attempt chose, or the fastest; the same everywhere."""
    wanted, n = recipe.numerics.micro_batch, recipe.minibatch.per_worker
    if isinstance(wanted, int):
        if draws_random and wanted != n:
            raise RecipeError(
                f"numerics.micro_batch={wanted}: the model draws random numbers, so it runs one worker a pass; "
                f"use numerics.micro_batch={n} or auto"
            )
        return wanted
    if before is not None:
        return before
    chosen = trial.best(workers, draws_random or recipe.numerics.exact)  # all try, as all will train
    return world.from_rank_zero(lambda: chosen)


def _make_exact(recipe: Recipe, device: torch.device) -> None:
    if _DTYPES[recipe.precision] != torch.float32:
        raise ExactnessError(
            f"numerics.exact=true with precision={recipe.precision}: exact sums hold float32 gradients; "
            f"use precision=fp32, bf16 or fp16, or numerics.exact=false"
        )
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def validate(recipe: Recipe, folder: Path | None, processes: int) -> Splits:
    """Everything that can be said of a run before any process starts.

    Args:
        recipe: resolved.
        folder: of the data sets.
        processes: W.

    Raises:
        UsageError: one line.
    """
    minibatch = Minibatch(recipe.minibatch.workers, recipe.minibatch.per_worker)
    place_workers(minibatch.workers, processes)
    check_algorithm(recipe.execution.aggregation, processes)
    if recipe.numerics.exact:
        _make_exact(recipe, torch.device("cpu"))
    dataset = load_data(recipe, folder)
    minibatch.check_fits(len(dataset.train))
    model, statistics, _, _ = replace_batch_norm(build_model(recipe, dataset), torch.float32, torch.device("cpu"))
    normalize = _normalizer(recipe, dataset, False, torch.device("cpu"))
    probed = normalize(dataset.train.part(slice(minibatch.per_worker))[0]).float()
    Probe(model, statistics, probed, dataset.num_classes)
    return dataset


def build(
    recipe: Recipe,
    world: World,
    dataset: Splits,
    *,
    model: nn.Module | None = None,
    own_data: bool = False,
    before: Mapping[str, Any] | None = None,
) -> Parts:
    """The parts of a run on this process.

    Args:
        recipe: resolved.
        world: the processes.
        dataset: from ``load_data``.
        model: one's own module, trained in place.
        own_data: the data set was handed in.
        before: what was decided when the run began; None to decide.

    Raises:
        UsageError: parts that do not fit together.
    """
    before = before or {}
    minibatch = Minibatch(recipe.minibatch.workers, recipe.minibatch.per_worker)
    minibatch.check_fits(len(dataset.train))
    workers = place_workers(minibatch.workers, world.size)[world.rank]
    device, dtype = world.device, _DTYPES[recipe.precision]
    if recipe.numerics.exact:
        _make_exact(recipe, device)
    threads = choose_threads(recipe.numerics)
    torch.set_num_threads(threads)
    built = build_model(recipe, dataset, model).to(device=device, dtype=dtype)
    if recipe.numerics.memory_format == "channels_last":
        built = built.to(memory_format=torch.channels_last)
    built, statistics, averages, restore = replace_batch_norm(built, dtype, device)
    normalizer = _normalizer(recipe, dataset, own_data, device)
    one = dataset.train.part(slice(minibatch.per_worker))
    probe = Probe(built, statistics, normalizer(one[0]), dataset.num_classes)
    forward: nn.Module = torch.compile(built) if recipe.numerics.compile else built  # type: ignore[assignment]
    if recipe.precision in _LOW:
        forward = LowPrecision(forward, _LOW[recipe.precision], device)
    trial = MicroBatchTrial(forward, statistics, normalizer, one, minibatch)
    micro_batch = _micro_batch(recipe, world, workers, trial, probe.draws_random, before.get("micro_batch"))
    reducer = make_reducer(recipe.execution.aggregation, world)
    aggregator = _aggregator(recipe, built, statistics, reducer)
    algorithm = decide(recipe.execution.aggregation, reducer, aggregator.buckets, before.get("algorithm"))
    plan = plan_of(recipe, len(dataset.train))
    optimizer = build_optimizer(recipe, built, plan)
    step = TrainingStep(
        forward, statistics, averages, aggregator, optimizer, schedule_of(recipe, plan), minibatch, workers,
        recipe.seed, recipe.loss.label_smoothing, probe.draws_random,
    )  # fmt: skip
    if recipe.precision == "fp16":
        step.loss_scale = LossScale(built.parameters())
    if recipe.optimizer.gradient_noise:
        step.noise = GradientNoise(recipe.optimizer.gradient_noise, recipe.seed, minibatch.per_worker)

    def make_feed() -> Feed:
        augment = recipe.data.augment
        padding = augment.padding if augment.crop == "padded" else 0
        return Feed(
            dataset.train,
            minibatch=minibatch, plan=plan, workers=workers, pass_workers=micro_batch // minibatch.per_worker,
            seed=recipe.seed, normalizer=normalizer,
            augmentation=Augmentation(augment.flip, padding, augment.crop == "scale-aspect"),
        )  # fmt: skip

    decided = {"micro_batch": micro_batch, "threads": threads, "algorithm": algorithm}
    return Parts(
        recipe, world, dataset, built, step, optimizer, aggregator, normalizer, decided, make_feed, restore
    )  # fmt: skip
