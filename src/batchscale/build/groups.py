"""How the workers of a group are normalised together: in one tensor, in a lane each, over several processes."""

from __future__ import annotations

from batchscale.build.network import Network
from batchscale.build.probe import Probe
from batchscale.comm import World
from batchscale.comm.among import sum_among
from batchscale.errors import RecipeError
from batchscale.minibatch import StepPlan
from batchscale.placement import place_workers, processes_of_groups
from batchscale.recipe import Recipe
from batchscale.task import Task
from batchscale.training.decided import DecidedEarlier
from batchscale.training.groups import WorkerGroups
from batchscale.worker.lanes import Lanes
from batchscale.worker.shared_batch_norm import Sum


def in_lanes(recipe: Recipe, task: Task) -> bool:
    """Whether each worker of a group of several has a pass of its own.

    Exact mode: a pass of n images rounds differently than one of g n. A loss of a whole worker has no meaning over
    several.
    """
    return recipe.batch_norm.span > 1 and (recipe.numerics.exact or task.unit == "worker")


def pass_workers(recipe: Recipe, task: Task, workers: int, processes: int) -> int:
    """The most workers of one group that a pass holds on any process.

    Args:
        recipe, task: of the run.
        workers: k.
        processes: W.
    """
    if in_lanes(recipe, task):
        return 1
    return min(recipe.batch_norm.span, max(map(len, place_workers(workers, processes, recipe.batch_norm.span))))


def check_groups(recipe: Recipe, workers: int, task: Task, probe: Probe, processes: int) -> None:
    """Raise where a group's workers cannot be normalised together in this way.

    Args:
        recipe, task: of the run.
        workers: k at its beginning, the fewest.
        probe: what a trial pass showed.
        processes: W.

    Raises:
        RecipeError: names the entries, and the way out.
    """
    span = recipe.batch_norm.span
    if span == 1:
        return
    lanes, split = in_lanes(recipe, task), processes > workers // span
    if split and not lanes and probe.draws_random:
        raise RecipeError(
            f"--processes={processes} with batch_norm.span={span}: the model draws random numbers, in fast mode for a "
            f"whole group at once, and {workers} workers have {workers // span} groups; use --exact (numbers drawn for "
            f"each worker), or at most {workers // span} processes"
        )
    if recipe.numerics.compile and (split or lanes):
        raise RecipeError(
            f"numerics.compile=true with batch_norm.span={span}: workers that wait for each other at every batch norm "
            f"(exact mode, more processes than groups) run no compiled passes; use numerics.compile=false"
        )
    if lanes and probe.kept:
        raise RecipeError(
            f"batch_norm.span={span} with numerics.exact: the model keeps tensors on itself in its forward pass "
            f"({probe.kept}), where the passes of a group's workers would mix them up; use batch_norm.span=1, or hand "
            f"them on inside forward"
        )


def check_gone_on(recipe: Recipe, task: Task, earlier: DecidedEarlier) -> None:
    """Raise where a run was begun by a version whose exact mode had one pass a group: these bits are not those.

    Raises:
        RecipeError: the way out.
    """
    if in_lanes(recipe, task) and not earlier.knows_lanes:
        raise RecipeError(
            f"numerics.exact=true with batch_norm.span={recipe.batch_norm.span}: this run was begun by an earlier "
            f"version, which gave a group one pass, and now each worker has its own: the bits would be neither's; go "
            f"on with numerics.exact=false, or train anew"
        )


def make_groups(
    recipe: Recipe, world: World, plan: StepPlan, network: Network, task: Task, draws_random: bool, first_step: int = 0
) -> WorkerGroups:
    """The groups of a run; all processes call this together, before anything hangs hooks on parameters.

    Args:
        recipe, world, plan, network, task: of the run.
        draws_random: a pass draws random numbers.
        first_step: of a branch, whose processes may be more than its trunk had workers.

    Raises:
        RecipeError: a model that cannot run in lanes.
    """
    span = recipe.batch_norm.span
    sums: dict[int, Sum] = {}
    for workers in sorted({minibatch.workers for minibatch in plan.reachable(first_step)}):
        if sets := processes_of_groups(place_workers(workers, world.size, span), span):
            sums[workers] = sum_among(world, sets)
    lanes = Lanes(network.model, world.device, draws_random) if in_lanes(recipe, task) else None
    return WorkerGroups(span, sums.get, lanes)
