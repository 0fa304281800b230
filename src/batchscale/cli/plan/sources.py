"""The options of `plan RECIPE` -> its question: recipe, cluster, net, measured points and goal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscale.cli.nets import net_of
from batchscale.cli.options import data_folder
from batchscale.cli.plan.goal import doubts_of, goal_of
from batchscale.cli.plan.points import points_of, whole_hosts
from batchscale.cli.plan.recipe import bounds_of, default_devices
from batchscale.cost.clusters.cluster import THIS_MACHINE, ClusterFile, Sourced, read_cluster
from batchscale.cost.planning.calibration import chosen_points, contradictions
from batchscale.cost.planning.pace import MeasuredPoint, Pace
from batchscale.cost.planning.parameters import parameters_of
from batchscale.cost.planning.physics import LayerPhysics, micro_batch_of, precision_of
from batchscale.cost.planning.question import PlanQuestion, Trained
from batchscale.cost.planning.risks import Risks
from batchscale.cost.step.net_table import NetTable
from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import Recipe, load_recipe
from batchscale.recipe.data import Data
from batchscale.recipe.wire import check_wire

_TEST_SHARE = Data.model_fields["test_share"].default
"""data.test_share for which a net's table has the sequences of its text."""

_OPTIMIZER_BYTES = {"sgd": 4, "lars": 4, "muon": 4}
"""Of its state, of a parameter; others keep two moments."""


def question_of(options: argparse.Namespace) -> tuple[PlanQuestion, list[dict[str, Any]], tuple[str, ...]]:
    """What is asked, what predicts, and what the options themselves make doubtful.

    Raises:
        UsageError: something that is named cannot be used.
    """
    cluster = _cluster(options)
    recipe = load_recipe(options.recipe, options.overrides)
    net = net_of(recipe, data_folder(options))
    trained = _trained(recipe, net, options)
    goal = goal_of(options.goal, options.critical, trained, recipe)
    precision = precision_of(cluster, recipe.precision, options.rate)
    state_bytes = _OPTIMIZER_BYTES.get(recipe.optimizer.name, 8)
    micro = micro_batch_of(net, cluster, precision, state_bytes, max(trained.sizes))
    check_wire(recipe)
    wire = 4 if recipe.numerics.wire == "fp32" else 2
    physics = LayerPhysics(net, cluster, precision, micro, options.rate, options.data_rate, state_bytes, wire)
    per_host = cluster.devices_per_host.value
    points, contradicting = _measured(options, trained, per_host)
    hosts = None if cluster.hosts is None else cluster.hosts.value
    devices = options.devices or default_devices(per_host, hosts)
    _check_whole_hosts(devices, per_host)
    price = options.price
    if price is None and cluster.price_per_device_hour is not None:
        price = cluster.price_per_device_hour.value
    failing = cluster.device_mtbf_hours
    pace = Pace(physics, per_host, points, options.rate is not None or options.cluster == THIS_MACHINE)
    question = PlanQuestion(
        trained, options.cluster, devices, pace, goal, price, bounds_of(options, price),
        None if failing is None else Risks(failing.value),
    )  # fmt: skip
    return (
        question,
        parameters_of(cluster, goal, pace),
        (
            *doubts_of(goal, options.goal, options.critical, trained.recipe, recipe),
            *_doubts(recipe, cluster, precision, devices),
            *_of_rate(physics, trained),
            *contradicting,
        ),
    )


def _measured(
    options: argparse.Namespace, trained: Trained, per_host: int
) -> tuple[tuple[MeasuredPoint, ...], list[str]]:
    """The points that lead the plan, and which of all contradict each other."""
    if not options.measured:
        return (), []
    every_point = points_of(options.measured, trained, per_host)
    points, _ = chosen_points(every_point, per_host, options.calibrate, " ".join(map(str, options.measured)))
    return points, list(contradictions(every_point, trained.examples))


def _check_whole_hosts(devices: tuple[int, ...], per_host: int) -> None:
    """Raise where a count lies between whole hosts.

    Raises:
        UsageError: names the nearest that does not.
    """
    for count in devices:
        if whole_hosts(count, per_host) != count:
            raise UsageError(
                f"--devices={count}: beyond one host of {per_host} it must be a whole number of hosts; give "
                f"{whole_hosts(count, per_host)}"
            )


def _doubts(recipe: Recipe, cluster: ClusterFile, precision: str, devices: tuple[int, ...]) -> list[str]:
    lines = []
    if precision != recipe.precision:
        lines.append(
            f"precision={recipe.precision}: the cluster's file has no rate in it; the plan goes by {precision}"
        )
    most = None if cluster.hosts is None else cluster.hosts.value * cluster.devices_per_host.value
    if most is not None and devices[-1] > most:
        lines.append(f"--devices={devices[-1]}: the cluster has {most:,}; beyond, the plan takes it as going on alike")
    if recipe.minibatch.growth.kind != "none":
        lines.append("minibatch.growth: a plan has one minibatch, the first of the recipe")
    return lines


def _of_rate(physics: LayerPhysics, trained: Trained) -> Iterator[str]:
    """That a device is faster than it can be."""
    percent = physics.alone_percent(max(trained.sizes))
    if percent is not None and percent > 100:
        source = "the cluster file's rates" if physics.rate is None else f"--rate={physics.rate:g}"
        yield (
            f"{source}: {percent:,.0f} % of the peak of a {physics.cluster.device} in {physics.precision}: faster than "
            f"it can be; correct the rate, or the peak"
        )


def _cluster(options: argparse.Namespace) -> ClusterFile:
    cluster = read_cluster(options.cluster)
    if options.launch is not None:
        launch = Sourced(value=options.launch, source="--launch, by hand")
        cluster = cluster.model_copy(update={"launch_microseconds": launch})
    if options.link is None:
        return cluster
    gbit, microseconds = options.link
    return with_link(cluster, gbit, microseconds, "--link")


def with_link(cluster: ClusterFile, gbit: float, microseconds: float, source: str) -> ClusterFile:
    """A cluster whose hosts are joined by another link."""
    latency = Sourced(value=microseconds, source=f"{source}, by hand") if microseconds else None
    return cluster.model_copy(update={
        "between_gbit_per_second": Sourced(value=gbit, source=f"{source}, by hand"), "between_microseconds": latency
    })  # fmt: skip


def _trained(recipe: Recipe, net: NetTable, options: argparse.Namespace) -> Trained:
    """The plan's view of the recipe.

    Raises:
        RecipeError: how many examples an epoch has is not known.
    """
    name, count = Path(options.recipe).stem, options.examples or _epoch_examples(recipe, net)
    if count is None or count < 1:
        raise RecipeError(
            f"data.name={recipe.data.name}: how many training examples an epoch has is not known without the data; "
            f"give --examples N"
        )
    parts = ("tokens", recipe.data.sequence) if recipe.data.sequence else ("", 1)
    k, n = recipe.minibatch.workers, recipe.minibatch.per_worker
    return Trained(name, k, n, count, net.unit, parts, options.per_worker)


def _epoch_examples(recipe: Recipe, net: NetTable) -> int | None:
    """N, of what the recipe trains on of its data set; None where that is not known without the data."""
    data = recipe.data
    if net.examples is None or data.subset is not None or data.test_share != _TEST_SHARE:
        return None
    left = net.examples - data.holdout
    return min(data.train_images, left) if data.train_images is not None else round(left * data.train_fraction)
