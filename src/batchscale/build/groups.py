"""How the workers of a group are normalised together: in one tensor, in a lane each, over several processes."""

from __future__ import annotations

from batchscale.build.network import Network
from batchscale.comm import World
from batchscale.comm.among import sum_among
from batchscale.errors import RecipeError
from batchscale.minibatch import StepPlan
from batchscale.placement import place_workers, processes_of_groups
from batchscale.recipe import Recipe
from batchscale.task import Task
from batchscale.training.groups import WorkerGroups
from batchscale.worker.lanes import Lanes
from batchscale.worker.shared_batch_norm import Sum


def in_lanes(recipe: Recipe, task: Task, draws_random: bool) -> bool:
    """Whether each worker of a group of several has a pass of its own.

    Exact mode: a pass of n images rounds differently than one of g n. Random draws: they are keyed by the worker. A
    loss of a whole worker: it has no meaning over several.
    """
    return recipe.batch_norm.span > 1 and (recipe.numerics.exact or draws_random or task.unit == "worker")


def check_compiled(recipe: Recipe, plan: StepPlan, task: Task, draws_random: bool, processes: int) -> None:
    """Raise where a compiled pass would have to wait for others in its middle.

    Raises:
        RecipeError: names the entries.
    """
    split = processes > plan.minibatch.workers // recipe.batch_norm.span  # k only grows
    if recipe.numerics.compile and recipe.batch_norm.span > 1 and (split or in_lanes(recipe, task, draws_random)):
        raise RecipeError(
            f"numerics.compile=true with batch_norm.span={recipe.batch_norm.span}: workers that wait for each other at "
            f"every batch norm (exact mode, a model that draws random numbers, more processes than groups) run no "
            f"compiled passes; use numerics.compile=false"
        )


def make_groups(
    recipe: Recipe, world: World, plan: StepPlan, network: Network, task: Task, draws_random: bool, first_step: int = 0
) -> WorkerGroups:
    """The groups of a run; all processes call this together.

    Args:
        recipe, world, plan, network, task: of the run.
        draws_random: a pass draws random numbers.
        first_step: of a branch, whose processes may be more than its trunk had workers.

    Raises:
        RecipeError: the passes are compiled, and would have to wait for each other.
    """
    span = recipe.batch_norm.span
    check_compiled(recipe, plan, task, draws_random, world.size)
    sums: dict[int, Sum] = {}
    phases = [phase for phase in plan.phases if plan.steps_of(phase).stop > first_step]
    for workers in sorted({phase.minibatch.workers for phase in phases}):
        if sets := processes_of_groups(place_workers(workers, world.size, span), span):
            sums[workers] = sum_among(world, sets)
    lanes = Lanes(network.model, world.device) if in_lanes(recipe, task, draws_random) else None
    return WorkerGroups(span, sums.get, lanes)
