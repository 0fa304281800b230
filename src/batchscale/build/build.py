"""Names of a recipe turned into parts: data, model, aggregator, optimizer, schedule, the step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.build.algorithm import check_algorithm, decide, make_reducer
from batchscale.build.inputs import examples_to_recompute, load_data, make_feed, make_normalizer
from batchscale.build.network import WEIGHTS, Network, build_model, build_network
from batchscale.build.planning import momentum_of, plan_of, recompute_examples, schedule_of
from batchscale.build.trial import Trial
from batchscale.build.wrapping import named_optimizer, surrounded
from batchscale.comm import Reducer, World
from batchscale.data.feed import Normalizer
from batchscale.data.images import Splits
from batchscale.errors import ExactnessError, RecipeError
from batchscale.launch.hardware import most_threads
from batchscale.minibatch import StepPlan, place_workers
from batchscale.recipe.schema import Recipe
from batchscale.records.tensorboard import check_installed
from batchscale.training.parts import Parts
from batchscale.training.step import TrainingStep
from batchscale.update.momentum import HasMomentum
from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.gradient import Probe
from batchscale.worker.noise import GradientNoise
from batchscale.worker.precision import LossScale
from batchscale.worker.recompute import Recomputation
from batchscale.worker.scale import growth_steps

_COUNTS = ("stop", "wrong", "news")
"""Whole numbers that are summed with the gradients: processes asked to stop, images told wrong, processes with news."""


def _aggregator(recipe: Recipe, plan: StepPlan, network: Network, reducer: Reducer) -> FastAggregator | ExactAggregator:
    extras = {"loss": [1], "statistics": network.statistics.chunks}
    parameters, counts = list(network.model.parameters()), (*_COUNTS, *("absent",) * network.statistics.layers)
    if recipe.numerics.exact:
        most = max(phase.minibatch.workers for phase in plan.phases)
        return ExactAggregator(parameters, most, reducer, extras, counts)
    bucket_bytes = int(recipe.execution.aggregation.bucket_megabytes * 2**20)
    return FastAggregator(parameters, reducer, extras, counts, bucket_bytes)


def _micro_batch(
    recipe: Recipe, world: World, workers: range, trial: Trial, draws_random: bool, before: int | None
) -> int:
    """Images of one pass: as the recipe says, as an earlier attempt chose, or the fastest; the same everywhere."""
    wanted, n = recipe.numerics.micro_batch, _group_images(recipe)
    why = "the model draws random numbers" if draws_random else "numerics.compile=true compiles no stacked batch norm"
    one = draws_random or recipe.numerics.compile
    if isinstance(wanted, int):
        if one and wanted != n:
            unit = "worker" if recipe.batch_norm.span == 1 else "group of workers"
            raise RecipeError(
                f"numerics.micro_batch={wanted}: {why}, so it runs one {unit} a pass; "
                f"use numerics.micro_batch={n} or auto"
            )
        return wanted
    if before is not None:
        return before
    chosen = trial.micro_batch(workers, one or recipe.numerics.exact)  # all try, as all will train
    return world.from_rank_zero(lambda: chosen)


def _threads(
    recipe: Recipe, world: World, workers: range, trial: Trial, draws_random: bool, before: int | None
) -> dict[str, int]:
    """Set this process's threads: as the recipe says, as an earlier attempt chose, or by trial; said for the record.

    What holds everywhere is cores a thread: hosts may differ, and a resume may have other processes.
    """
    numerics, most = recipe.numerics, most_threads(recipe.numerics)
    if numerics.threads != "auto" or numerics.exact:
        return {"threads": most}
    chosen = before
    if chosen is None:
        free = world.device.type == "cpu" and not numerics.compile  # which would compile anew for every number
        one = draws_random or numerics.micro_batch == _group_images(recipe)
        tried = trial.cores_per_thread(most, workers, one) if free and most > 1 else 1  # all try, as all will train
        chosen = world.from_rank_zero(lambda: tried)
    threads = max(most // chosen, 1)
    torch.set_num_threads(threads)
    return {"threads": threads, "cores_per_thread": chosen}


def _hosted(world: World, span: int, workers: int) -> range:
    """Which of k workers live on this process, in whole groups of ``span``."""
    return place_workers(workers, world.size, span)[world.rank]


def _noisy(recipe: Recipe, plan: StepPlan, logits: torch.Tensor, step: int, worker: int) -> torch.Tensor:
    """Gradient noise over the step's n."""
    noise = GradientNoise(recipe.optimizer.gradient_noise, recipe.seed, plan.minibatch_at(step).per_worker)
    return noise(logits, step, worker)


def _group_images(recipe: Recipe) -> int:
    """g n, the images that are normalised together: the fewest that a pass may hold."""
    return recipe.minibatch.per_worker * recipe.batch_norm.span


def _recomputation(
    recipe: Recipe, world: World, dataset: Splits, network: Network, plan: StepPlan, normalizer: Normalizer
) -> Recomputation | None:
    if recipe.batch_norm.running != "recomputed" or not network.averages.layers:
        return None
    examples = examples_to_recompute(recipe, dataset, plan.phases[-1].minibatch.per_worker)
    return Recomputation(network.model, network.averages.layers, network.statistics, examples, normalizer, world)


def _make_exact(recipe: Recipe, device: torch.device) -> None:
    if WEIGHTS[recipe.precision] != torch.float32:
        raise ExactnessError(
            f"numerics.exact=true with precision={recipe.precision}: exact sums hold float32 gradients; "
            f"use precision=fp32, bf16 or fp16, or numerics.exact=false"
        )
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def validate(recipe: Recipe, folder: Path | None, processes: int, dataset: Splits | None = None) -> Splits:
    """Everything that can be said of a run before any process starts.

    Args:
        recipe: resolved.
        folder: of the data sets.
        processes: W.
        dataset: of a recipe with the same ``data``, where that was loaded before.

    Returns:
        The data set.

    Raises:
        UsageError: one line.
    """
    place_workers(recipe.minibatch.workers, processes, recipe.batch_norm.span)  # k only grows
    check_algorithm(recipe.execution.aggregation, processes)
    if recipe.execution.tensorboard:
        check_installed()
    if recipe.numerics.exact:
        _make_exact(recipe, torch.device("cpu"))
    dataset = dataset or load_data(recipe, folder)
    plan = plan_of(recipe, len(dataset.train))
    if recipe.batch_norm.running == "recomputed":
        recompute_examples(recipe, len(dataset.train), plan.phases[-1].minibatch.per_worker)
    schedule_of(recipe, plan)
    model, statistics, _, _ = replace_batch_norm(
        build_model(recipe, dataset), torch.float32, torch.device("cpu"), recipe.batch_norm.span
    )
    normalize = make_normalizer(recipe, dataset, False, torch.device("cpu"))
    probed = normalize(dataset.train.part(slice(_group_images(recipe)))[0]).float()
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
    if recipe.execution.tensorboard:
        check_installed()
    plan = plan_of(recipe, len(dataset.train))
    workers = partial(_hosted, world, recipe.batch_norm.span)
    workers(plan.minibatch.workers)
    if recipe.numerics.exact:
        _make_exact(recipe, world.device)
    torch.set_num_threads(most_threads(recipe.numerics))
    network = build_network(recipe, dataset, world.device, model)
    normalizer = make_normalizer(recipe, dataset, own_data, world.device)
    images, labels = dataset.train.part(slice(_group_images(recipe)))
    probe = Probe(network.model, network.statistics, normalizer(images), dataset.num_classes)
    per_worker = plan.minibatch.per_worker
    trial = Trial(network.forward, network.statistics, normalizer, (images, labels), per_worker)
    most, draws_random = workers(plan.phases[-1].minibatch.workers), probe.draws_random
    threads = _threads(recipe, world, most, trial, draws_random, before.get("cores_per_thread"))
    micro_batch = _micro_batch(recipe, world, most, trial, draws_random, before.get("micro_batch"))
    reducer = make_reducer(recipe.execution.aggregation, world)
    aggregator = _aggregator(recipe, plan, network, reducer)
    algorithm = decide(recipe.execution.aggregation, reducer, aggregator.buckets, before.get("algorithms", ()))
    named = named_optimizer(recipe, network.model, plan)
    optimizer = surrounded(recipe, network.model, named)
    step = TrainingStep(
        network.forward, network.statistics, network.averages, aggregator, optimizer, schedule_of(recipe, plan),
        plan, workers, recipe.seed, recipe.loss.label_smoothing, draws_random,
    )  # fmt: skip
    if recipe.precision == "fp16":
        step.loss_scale = LossScale(network.model.parameters(), growth_steps=growth_steps(plan.total_steps))
    if recipe.optimizer.gradient_noise:
        step.noise = partial(_noisy, recipe, plan)
    if (momentum := momentum_of(recipe, plan)) is not None:
        step.set_momentum = partial(momentum.set, cast(HasMomentum, named))
    decided = {"micro_batch": micro_batch, **threads, "algorithm": algorithm}
    feed = partial(make_feed, recipe, dataset, normalizer, plan, workers, micro_batch)
    return Parts(
        recipe, world, dataset, network.model, step, optimizer, aggregator, normalizer, decided, feed, network.restore,
        _recomputation(recipe, world, dataset, network, plan, normalizer),
    )  # fmt: skip
