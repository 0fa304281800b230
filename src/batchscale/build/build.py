"""Names of a recipe turned into parts: data, task, model, aggregator, optimizer, schedule, the step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from batchscale.build.algorithm import check_algorithm
from batchscale.build.assembly import Assembly, requests
from batchscale.build.constants import run_constants
from batchscale.build.deterministic import use_deterministic_algorithms
from batchscale.build.groups import check_groups, pass_workers
from batchscale.build.inputs import (
    check_decoder,
    examples_to_recompute,
    load_data,
    make_feed,
    make_normalizer,
    order_of,
    padding_of,
)
from batchscale.build.network import WEIGHTS, Network, build_model, build_network
from batchscale.build.planning import kept_steps, recompute_examples
from batchscale.build.probe import Probe
from batchscale.build.resident import resident
from batchscale.build.tasks import check_task, make_task
from batchscale.build.trunk import Trunk, run_plan
from batchscale.build.wire import wire_of
from batchscale.build.wrapping import matrices_for
from batchscale.comm import World
from batchscale.data.examples import Splits
from batchscale.data.feed import Normalizer
from batchscale.errors import ExactnessError
from batchscale.launch.hardware import most_threads
from batchscale.minibatch import StepPlan
from batchscale.placement import place_workers
from batchscale.recipe.schema import Recipe
from batchscale.records.tensorboard import check_installed
from batchscale.structure import mapped
from batchscale.system.allocator import keep_freed_memory
from batchscale.task import Task
from batchscale.training.decided import DecidedEarlier
from batchscale.training.parts import Parts
from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.recompute import Recomputation


def _hosted(world: World, span: int, workers: int) -> range:
    """Which of k workers live on this process, in groups of ``span``."""
    return place_workers(workers, world.size, span)[world.rank]


def _recomputation(
    recipe: Recipe, world: World, dataset: Splits, network: Network, plan: StepPlan, normalizer: Normalizer
) -> Recomputation | None:
    if recipe.batch_norm.running != "recomputed" or not network.averages.layers:
        return None
    examples = examples_to_recompute(recipe, dataset, plan.phases[-1].minibatch.per_worker)
    return Recomputation(network.model, network.averages.layers, network.statistics, examples, normalizer, world)


def _prepare_process(recipe: Recipe, device: torch.device) -> None:
    """Its algorithms, threads and memory."""
    if recipe.numerics.exact:
        _make_exact(recipe, device)
    torch.set_num_threads(most_threads(recipe.numerics))
    if device.type == "cpu":
        keep_freed_memory()


def _make_exact(recipe: Recipe, device: torch.device) -> None:
    if WEIGHTS[recipe.precision] != torch.float32:
        raise ExactnessError(
            f"numerics.exact=true with precision={recipe.precision}: exact sums hold float32 gradients; "
            f"use precision=fp32, bf16 or fp16, or numerics.exact=false"
        )
    use_deterministic_algorithms(device)


def validate(
    recipe: Recipe, folder: Path | None, processes: int, dataset: Splits | None = None, trunk: Trunk | None = None
) -> Splits:
    """Everything that can be said of a run before any process starts.

    Args:
        recipe: resolved.
        folder: of the data sets.
        processes: W.
        dataset: of a recipe with the same ``data``, where that was loaded before.
        trunk: of a branch.

    Returns:
        The data set.

    Raises:
        UsageError: one line.
    """
    place_workers(recipe.minibatch.workers, processes, recipe.batch_norm.span)  # k only grows
    check_algorithm(recipe.execution.aggregation, processes)
    wire_of(recipe)
    check_decoder(recipe)
    if recipe.execution.tensorboard:
        check_installed()
    if recipe.numerics.exact:
        _make_exact(recipe, torch.device("cpu"))
    dataset = dataset or load_data(recipe, folder)
    plan = run_plan(recipe, len(dataset.train), trunk)
    if recipe.batch_norm.running == "recomputed":
        recompute_examples(recipe, len(dataset.train), plan.phases[-1].minibatch.per_worker)
    run_constants(recipe, plan, trunk)
    kept_steps(recipe, plan)
    plain = build_model(recipe, dataset)
    matrices_for(recipe, plain)
    model, statistics, _, _ = replace_batch_norm(plain, torch.float32, torch.device("cpu"), recipe.batch_norm.span)
    normalize = make_normalizer(recipe, dataset, False, torch.device("cpu"))
    task = make_task(recipe, dataset)
    check_task(recipe, task)
    workers = pass_workers(recipe, task, recipe.minibatch.workers, processes)
    inputs, targets = dataset.train.part(slice(workers * recipe.minibatch.per_worker))
    probe = Probe(model, statistics, mapped(_single, normalize(inputs)), targets, task, workers)
    check_groups(recipe, recipe.minibatch.workers, task, probe, processes)
    return dataset


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def build(
    recipe: Recipe,
    world: World,
    dataset: Splits,
    *,
    model: nn.Module | None = None,
    task: Task | None = None,
    own_data: bool = False,
    earlier: DecidedEarlier | None = None,
    trunk: Trunk | None = None,
) -> Parts:
    """The parts of a run on this process.

    Args:
        recipe: resolved.
        world: the processes.
        dataset: from ``load_data``.
        model: one's own module, trained in place.
        task: one's own; None for the recipe's.
        own_data: the data set was handed in.
        earlier: what was decided when the run began; None to decide.
        trunk: of a branch.

    Raises:
        UsageError: parts that do not fit together.
    """
    check_decoder(recipe)
    if recipe.execution.tensorboard:
        check_installed()
    plan = run_plan(recipe, len(dataset.train), trunk)
    workers = partial(_hosted, world, recipe.batch_norm.span)
    workers(plan.minibatch_at(trunk.step if trunk else 0).workers)
    _prepare_process(recipe, world.device)
    task = task or make_task(recipe, dataset)
    check_task(recipe, task)
    network = build_network(recipe, dataset, world.device, model)
    normalizer = make_normalizer(recipe, dataset, own_data, world.device)
    may_ask = requests()
    assembly = Assembly(recipe, world, dataset, task, network, normalizer, plan, workers, may_ask, trunk)
    step, decided = assembly.step(earlier or DecidedEarlier())
    recomputation = _recomputation(recipe, world, dataset, network, plan, normalizer)
    order = order_of(recipe, plan, trunk)
    # In lanes every worker is a pass of its own.
    span, most = (1, 1) if step.groups.lanes else (recipe.batch_norm.span, decided.micro_batch)
    if (kept := resident(dataset.train, padding_of(recipe), world.device)) is not None:
        decided = replace(decided, data_on_device=kept.as_json())
    on_device = kept.examples if kept else None
    feed = partial(make_feed, recipe, dataset, normalizer, plan, order, workers, most, span, on_device)
    return Parts(
        recipe, world, dataset, network.model, network.evaluation, step, step.optimizer, step.aggregator, normalizer,
        decided, may_ask, feed, network.restore, recomputation, kept_steps(recipe, plan), assembly.growing(),
        assembly.gain,
    )  # fmt: skip
