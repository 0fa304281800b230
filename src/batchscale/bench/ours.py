"""batchscale's own contender: the trainer's parts, step and feed, in fast mode."""

from __future__ import annotations

import itertools

import torch

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter
from batchscale.build.build import build
from batchscale.comm import World
from batchscale.recipe import recipe_from

_ENDLESS_EPOCHS = 1e6


def train(assignment: Assignment, meter: Meter, exact: bool) -> None:
    """The trainer's steps, without end."""
    mode = ["numerics.exact=true", "numerics.micro_batch=auto"] if exact else ["numerics.exact=false"]
    recipe = recipe_from(
        assignment.content, [f"epochs={_ENDLESS_EPOCHS}", f"numerics.threads={assignment.threads}", *mode]
    )
    world = World.connect(torch.device("cpu"), recipe.execution.timeout_seconds)
    parts = build(recipe, world, assignment.dataset)
    meter.note(micro_batch=parts.decided.micro_batch, threads=torch.get_num_threads())
    meter.ask(phase_seconds=parts.step.seconds.take)
    feed = parts.make_feed()
    for step in itertools.count():
        parts.step(step, feed.passes(step))
        meter.step()


def main(assignment: Assignment, meter: Meter) -> None:
    """Fast mode."""
    train(assignment, meter, exact=False)
