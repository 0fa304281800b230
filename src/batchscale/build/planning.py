"""A recipe's durations turned into steps: the plan of its minibatches, the lr of every step."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction

from batchscale.build.examples import examples_of, told_of_examples
from batchscale.build.growing import KeptSteps, with_decisions
from batchscale.errors import RecipeError
from batchscale.minibatch import Change, Minibatch, StepPlan
from batchscale.placement import place_workers
from batchscale.recipe.optimizer import WithMomentum
from batchscale.recipe.schema import Recipe
from batchscale.update.growth import GROWTHS, Growth
from batchscale.update.momentum import PlannedMomentum
from batchscale.update.schedule import (
    SCALINGS,
    BranchFactor,
    Decay,
    PlannedSchedule,
    Schedule,
    first_steps,
    halvings,
    scaled_lr,
)

_RECOMPUTE_WORKERS = 64  # whose n examples each batch norm's statistics are recomputed over, unless the recipe says


def share_of(fraction: float, examples: int) -> int:
    """So many of the examples, to the nearest whole one, and one at least: data.train_fraction."""
    return max(math.floor(fraction * examples + 0.5), 1)


def plan_of(recipe: Recipe, training_images: int) -> StepPlan:
    """The steps of a recipe on so many training images, as a run by itself.

    Raises:
        RecipeError: minibatches that do not fit the data or groups of workers, or changes that do not fit the run.
    """
    first = Minibatch(recipe.minibatch.workers, recipe.minibatch.per_worker)
    entry, decay = recipe.minibatch.growth, recipe.learning_rate.decay
    stated = tuple(Change(Fraction(str(epoch)), Minibatch(k, n)) for epoch, k, n in recipe.minibatch.phases()[1:])
    factor = decay.factor if isinstance(decay.factor, float) else 1.0  # several: refused beside instead_of_decay
    growth = Growth(
        entry.kind, first, recipe.epochs, training_images, phases=stated, decay_epochs=decay.epochs,
        decay_factor=factor, halving_epochs=_halving_epochs(recipe, training_images), **entry.options(),
    )  # fmt: skip
    changes = GROWTHS[entry.kind](growth)
    with told_of_examples(recipe):
        plan = StepPlan(first, training_images, recipe.epochs, recipe.data.partial, changes)
    for phase in plan.phases:
        place_workers(phase.minibatch.workers, 1, recipe.batch_norm.span)
    return with_decisions(recipe, plan)


def _halving_epochs(recipe: Recipe, training_images: int) -> tuple[float, ...]:
    """The epochs at which the lr's decay has halved it once more; () unless growth goes by them.

    Raises:
        RecipeError: no decay, or an lr that does not follow the root of the minibatch.
    """
    entry, first = recipe.learning_rate, Minibatch(recipe.minibatch.workers, recipe.minibatch.per_worker)
    if recipe.minibatch.growth.kind != "seesaw":
        return ()
    if entry.decay.kind == "none":
        raise RecipeError(
            "minibatch.growth.kind=seesaw with learning_rate.decay.kind=none: the minibatch doubles where the decay "
            "halves the lr; give a decay, such as learning_rate.decay={kind: cosine}"
        )
    if SCALINGS[entry.scaling](4.0) != SCALINGS["sqrt"](4.0):
        raise RecipeError(
            f"minibatch.growth.kind=seesaw with learning_rate.scaling={entry.scaling}: under seesaw the lr follows the "
            f"schedule x the root of the minibatch; use learning_rate.scaling=sqrt, adam_sde or half_life_sqrt"
        )
    steps = StepPlan(first, training_images, recipe.epochs, recipe.data.partial).phases[0].steps_per_epoch
    begin = float((entry.warmup.steps or 0) / steps) if entry.warmup.epochs is None else entry.warmup.epochs
    decay = Decay(entry.decay.kind, entry.decay.epochs, entry.decay.factor, entry.decay.power, entry.decay.final)
    end = entry.decay.end or recipe.epochs
    return tuple(halvings(decay, begin if entry.warmup.kind != "none" else 0.0, end))


def as_long(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe of a run of so many epochs, where it is shorter, that grows as it did."""
    entry = recipe.learning_rate
    ends = recipe.minibatch.growth.kind == "seesaw" and entry.decay.kind in ("cosine", "polynomial")
    if ends and entry.decay.end is None and epochs > recipe.epochs:
        decay = entry.decay.model_copy(update={"end": recipe.epochs})
        recipe = recipe.model_copy(update={"learning_rate": entry.model_copy(update={"decay": decay})})
    return recipe.model_copy(update={"epochs": max(epochs, recipe.epochs)})


def decay_epochs(recipe: Recipe, training_images: int) -> list[float]:
    """Where the lr falls by the factor of a step decay: those places that growth has not taken."""
    if recipe.minibatch.growth.kind != "instead_of_decay":
        return list(recipe.learning_rate.decay.epochs)
    return _decays(recipe, len(plan_of(recipe, training_images).growth))


def _decays(recipe: Recipe, grown: int) -> list[float]:
    """The decays that are left where growth has taken so many of them."""
    grown = grown if recipe.minibatch.growth.kind == "instead_of_decay" else 0
    return list(recipe.learning_rate.decay.epochs[grown:])


@dataclass(frozen=True)
class BranchedFrom:
    """What a branch's lr takes from the first of its trunks.

    Attributes:
        plan: by whose steps a warmup in steps, and the decay's end, are counted: the trunk's schedule goes on as a
            function of examples seen.
        grown: how many decays growth has taken, with growth.kind=instead_of_decay.
        factors: of every branch on the way, from its first step on.
    """

    plan: StepPlan
    grown: int
    factors: tuple[BranchFactor, ...]


def schedule_of(recipe: Recipe, plan: StepPlan, branched: BranchedFrom | None = None) -> PlannedSchedule:
    """The lr of every step; durations in epochs converted once, here, to steps of the first minibatch.

    Args:
        recipe: resolved.
        plan: of the run.
        branched: of a branch.

    Raises:
        RecipeError: a warmup that starts above the target, or that has not ended where the decay ends.
    """
    entry = recipe.learning_rate
    steps_per_epoch, durations = plan.phases[0].steps_per_epoch, (branched.plan if branched else plan).as_stated
    decays = _decays(recipe, branched.grown) if branched else decay_epochs(recipe, plan.training_images)
    if entry.warmup.steps is not None:
        warmup = first_steps(durations, entry.warmup.steps)
    else:
        warmup = float(Fraction(str(entry.warmup.epochs or 0)) * steps_per_epoch)
    decay = Decay(
        entry.decay.kind,
        tuple(float(Fraction(str(e)) * steps_per_epoch) for e in decays),
        entry.decay.factor,
        entry.decay.power,
        entry.decay.final,
        None if entry.decay.end is None else float(Fraction(str(entry.decay.end)) * steps_per_epoch),
    )
    target = scaled_lr(entry.reference, entry.reference_minibatch, plan.minibatch.images, entry.scaling)
    total = first_steps(durations, durations.total_steps)
    first = Schedule(entry.reference, target, total, entry.warmup.kind, warmup, decay, entry.warmup.start)
    _check(first)
    follows = recipe.minibatch.growth.lr_follows()
    factors = branched.factors if branched else ()
    return PlannedSchedule(plan, first, entry.scaling if follows else "none", factors)


def recompute_examples(recipe: Recipe, training_images: int, per_worker: int) -> int:
    """M, how many examples batch norm's statistics are recomputed over: the recipe's number, or min(N, 64 n).

    Args:
        recipe: with batch_norm.running: recomputed.
        training_images: N.
        per_worker: n, the largest of the run.

    Raises:
        RecipeError: fewer than a group's g n images, or more than there are.
    """
    wanted, group = recipe.batch_norm.recompute_examples, per_worker * recipe.batch_norm.span
    if wanted is None:
        return min(training_images, max(_RECOMPUTE_WORKERS * per_worker, group))
    if not group <= wanted <= training_images:
        examples = examples_of(recipe)
        raise RecipeError(
            f"batch_norm.recompute_examples={wanted}: must lie between the {group} {examples} that are normalised "
            f"together and the {training_images} training {examples}; use {min(max(wanted, group), training_images)}"
        )
    return wanted


def kept_steps(recipe: Recipe, plan: StepPlan) -> Container[int]:
    """The steps whose checkpoints stay: execution.keep_checkpoints, epochs counted to their last step.

    Raises:
        RecipeError: one that lies beyond the run.
    """
    kept = recipe.execution.keep_checkpoints
    for epoch in kept.epochs:
        if epoch > recipe.epochs:
            raise RecipeError(
                f"execution.keep_checkpoints.epochs: {epoch:g} lies beyond the run's end, epochs={recipe.epochs:g}; "
                f"name an earlier one"
            )
    for step in kept.steps:
        if step > plan.total_steps:
            raise RecipeError(
                f"execution.keep_checkpoints.steps: {step} lies beyond the run's last step, {plan.total_steps}; name "
                f"an earlier one"
            )
    return KeptSteps(plan, kept.steps, kept.epochs)


def _check(schedule: Schedule) -> None:
    start, end = schedule.start, schedule.decay.end
    if schedule.warmup == "none":
        return
    if start is not None and start > schedule.target:
        raise RecipeError(
            f"learning_rate.warmup.start={start:g}: must not be above the lr that the warmup leads to, "
            f"{schedule.target:g}; give a lower one, or leave it out"
        )
    if end is not None and end <= schedule.warmup_steps:
        raise RecipeError(
            f"learning_rate.decay.end is step {end:g}, and the warmup lasts {schedule.warmup_steps:g} steps: the decay "
            f"must end after the warmup; give a later epoch, or a shorter learning_rate.warmup"
        )


def momentum_of(recipe: Recipe, plan: StepPlan) -> PlannedMomentum | None:
    """The momentum of every step where that changes; else None."""
    entry = recipe.optimizer
    if not isinstance(entry, WithMomentum) or not entry.momentum_changes:
        return None
    changes = tuple((Fraction(str(change.epoch)), change.momentum) for change in entry.momentum_changes)
    return PlannedMomentum(plan, entry.momentum, changes)
