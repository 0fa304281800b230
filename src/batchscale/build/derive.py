"""Numbers that follow from a recipe, each with its formula: printed before training starts, kept in the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchscale.build.constants import constant_rows
from batchscale.build.examples import examples_of
from batchscale.build.planning import decay_epochs, momentum_of, recompute_examples
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.minibatch import StepPlan
from batchscale.placement import place_workers
from batchscale.recipe.minibatch import DecidedGrowth, GrowthEntry
from batchscale.recipe.schema import Recipe
from batchscale.update.growing import GrowingPlan
from batchscale.update.rules import RULES
from batchscale.update.schedule import SCALINGS, PlannedSchedule, first_steps
from batchscale.words import counted, of_examples
from batchscale.worker.scale import FIRST_LOSS_SCALE, LOSS_SCALE_UNIT, growth_steps

FEW_STEPS = 50
"""Runs below it are too short for running averages to follow the weights."""


@dataclass(frozen=True)
class Derived:
    """One derived number: its name, formula and value as text."""

    name: str
    formula: str
    value: str


_REDUCED = {
    False: "N, after data.holdout and data.train_images",
    True: "N, after data.holdout, data.train_images and data.train_fraction",
}


def derived_numbers(
    recipe: Recipe, training_images: int, processes: int, trunk: Trunk | None = None, examples: str = ""
) -> list[Derived]:
    """Minibatch, steps, workers per process and the lr at each phase, each with its formula.

    Args:
        recipe: resolved.
        training_images: N.
        processes: W.
        trunk: of a branch.
        examples: what a task of one's own calls its examples; "": as the recipe's task.
    """
    k, n = recipe.minibatch.workers, recipe.minibatch.per_worker
    plan = run_plan(recipe, training_images, trunk)
    schedule = run_schedule(recipe, plan, trunk)
    entry, first = recipe.learning_rate, schedule.first
    spe, target = plan.phases[0].steps_per_epoch, _lr_formula(entry.scaling, "kn / reference_minibatch")
    rows = [
        Derived("minibatch", f"kn = workers x per_worker = {k} x {n}", counted(k * n, "image")),
        *_branch(recipe, plan, schedule, trunk),
        Derived("training images", _REDUCED[recipe.data.train_fraction < 1], f"{training_images}"),
        Derived("steps per epoch", f"N / kn, partial minibatch: {recipe.data.partial}", f"{float(spe):g}"),
        *_phases(recipe, plan, schedule),
        Derived(
            "steps",
            f"ceil(epochs x steps per epoch){', phase by phase' if plan.growth else ''}, epochs = {recipe.epochs:g}",
            f"{'' if plan.total_is_certain else 'at most '}{plan.total_steps}",
        ),
        *_placed(plan, processes, recipe.batch_norm.span, trunk.step if trunk else 0),
        Derived(
            "target lr",
            f"reference x {target} = {entry.reference:g} x {first.target / entry.reference:g}"
            if entry.reference
            else "reference = 0",
            f"{first.target:g}",
        ),
        *_warmup(plan, schedule),
        *_falls(recipe, plan, schedule),
        *_loss_scale(recipe, plan),
        *_statistics(recipe, plan),
        *_momentum(recipe, plan),
        *(Derived(*row) for row in constant_rows(recipe, plan, trunk)),
    ]
    rows.append(Derived("last lr", f"decay {entry.decay.kind}", f"{schedule(plan.total_steps - 1):.4g}"))
    return _in_words(rows, examples or examples_of(recipe))


def _in_words(rows: list[Derived], noun: str) -> list[Derived]:
    """The numbers of the task's examples; they are written of images."""
    return [
        row  # it holds a folder's name, which is no words
        if row.name == "branch"
        else Derived(*(of_examples(text, noun) for text in (row.name, row.formula, row.value)))
        for row in rows
    ]


def _lr_formula(rule: str, ratio: str) -> str:
    """A rule's factor on the lr, of this ratio of minibatches."""
    return RULES[rule].lr_formula.format(r=ratio)


def ended_decay_warning(recipe: Recipe, trunk: Trunk | None) -> str | None:
    """That a branch longer than its trunk goes on at the last lr, where its decay ends with the trunk's."""
    root = trunk
    while root is not None and root.trunk is not None:
        root = root.trunk
    decay = recipe.learning_rate.decay
    if root is None or recipe.epochs <= root.recipe.epochs or decay.end is not None:
        return None
    if decay.kind not in ("cosine", "polynomial"):
        return None
    return (
        f"warning: the {decay.kind} decay ends where the first trunk's does, at epoch {root.recipe.epochs:g}: the "
        f"branch goes on at the last lr from there; learning_rate.decay.end={recipe.epochs:g} stretches it"
    )


def _branch(recipe: Recipe, plan: StepPlan, schedule: PlannedSchedule, trunk: Trunk | None) -> list[Derived]:
    """Where a branch begins, and what it makes of its trunk's lr."""
    if trunk is None:
        return []
    f, rule = schedule.branches[-1].minibatch_factor, schedule.branches[-1].rule
    factor = SCALINGS[rule](f)
    entries = (recipe.learning_rate.model_copy(update={"scaling": "none"}) for recipe in (recipe, trunk.recipe))
    whose = "the trunk's" if next(entries) == next(entries) else "this recipe's lr, by the trunk's rule,"
    return [
        Derived("branch", f"of {trunk.folder}", f"from step {trunk.step}, epoch {float(plan.epoch_at(trunk.step)):g}"),
        Derived("branch lr", f"{whose} at the same examples x {rule}(f), f = {f:g}", f"x {factor:g}"),
    ]


def _phases(recipe: Recipe, plan: StepPlan, schedule: PlannedSchedule) -> list[Derived]:
    """Each phase of a minibatch that grows: from which step on, how many, at which lr."""
    growth = recipe.minibatch.growth
    if growth.kind == "none":
        return []
    rule = _lr_formula(schedule.scaling, "kn / first kn")
    about = {
        "noise_scale": _decided(growth, plan),
        "curvature": _decided(growth, plan),
        "phases": f"at {counted(len(plan.growth), 'given epoch')}",
        "doubling": f"x 2 every {counted(growth.options().get('every_epochs', 0), 'epoch', 'g')}",
        "instead_of_decay": f"/ {_factors(recipe.learning_rate.decay.factor)} at a decay while kn <= N / 10 = "
        f"{plan.training_images / 10:g}",
        "seesaw": f"x 2 at each halving of the decay while kn <= N / 10 = {plan.training_images / 10:g}",
    }
    changes = counted(len(plan.growth), "change") if plan.growth else "never within this run"
    if isinstance(plan, GrowingPlan):
        changes = f"at most {counted(plan.reachable()[-1].images, 'image')}"
    rows = [Derived("growth", f"{about[growth.kind]}; lr x {rule}", changes)]
    stated = plan.phases if plan.total_is_certain else ()
    for number, phase in enumerate(stated):
        k, n = phase.minibatch.workers, phase.minibatch.per_worker
        steps = plan.steps_of(phase)
        rows.append(
            Derived(
                f"phase {number + 1}",
                f"epoch {float(phase.first_epoch):g}: kn = {k} x {n}, "
                f"{counted(float(phase.steps_per_epoch), 'step', 'g')} an epoch",
                f"{counted(phase.minibatch.images, 'image')}, {counted(len(steps), 'step')} from step {steps.start}, "
                f"lr {schedule(steps.start):g}",
            )
        )
    return rows


def _decided(growth: GrowthEntry, plan: StepPlan) -> str:
    """When the minibatch doubles by a measure."""
    if not (isinstance(plan, GrowingPlan) and isinstance(growth, DecidedGrowth)):
        return ""
    rule = plan.rule
    return (
        f"x 2 where {growth.asks_for()} in {counted(rule.confirm, 'decision')} in a row, one every "
        f"{counted(rule.every_examples, 'image')}, {counted(rule.delay_steps, 'step')} later"
    )


def _placed(plan: StepPlan, processes: int, span: int, first_step: int) -> list[Derived]:
    """Workers per process, for every number of workers from a step on."""
    numbers = dict.fromkeys(minibatch.workers for minibatch in plan.reachable(first_step))
    placed = [(k, ", ".join(str(len(part)) for part in place_workers(k, processes, span))) for k in numbers]
    return [
        Derived("workers per process", f"{counted(k, 'worker')} on {counted(processes, 'process')}", text)
        for k, text in placed
    ]


def _warmup(plan: StepPlan, schedule: PlannedSchedule) -> list[Derived]:
    """The lr in the warmup and after it, or where the run ends in it."""
    first = schedule.first
    if first.warmup == "none":
        return []
    after, last = math.ceil(first.warmup_steps), plan.total_steps - 1
    value = f"lr {first(after):g} after it"
    if first_steps(plan, last) < first.warmup_steps:
        value = f"never reached: the run ends at lr {schedule(last):g} after {counted(plan.total_steps, 'step')}"
    about = f"{first.warmup}, from lr {first(0):g} for {counted(first.warmup_steps, 'step', 'g')}"
    return [Derived("warmup", about, value)]


def _decays_left(recipe: Recipe, plan: StepPlan, schedule: PlannedSchedule) -> list[float]:
    """The epochs of a step decay: of a branch those that its trunks have not turned into growth."""
    if not schedule.branches:
        return decay_epochs(recipe, plan.training_images)
    return [round(step / float(plan.phases[0].steps_per_epoch), 6) for step in schedule.first.decay.steps]


def _falls(recipe: Recipe, plan: StepPlan, schedule: PlannedSchedule) -> list[Derived]:
    """The lr after each step of a decay, or at the end of one that has an end of its own."""
    entry = recipe.learning_rate.decay
    if entry.kind == "step":
        epochs = _decays_left(recipe, plan, schedule)
        formula = f"x {_factors(entry.factor)} at epochs {epochs}"
        return [Derived("decay", formula, _from(plan, epochs, lambda step: f"lr {schedule(step):g}"))]
    if entry.end is None:
        return []
    value = _from(plan, [entry.end], lambda step: f"lr {schedule(step):.4g}")
    return [Derived("decay", f"{entry.kind}, to {entry.final:g} of the target at epoch {entry.end:g}", value)]


def _momentum(recipe: Recipe, plan: StepPlan) -> list[Derived]:
    """The momentum from each change on."""
    momentum = momentum_of(recipe, plan)
    if momentum is None:
        return []
    epochs = [float(epoch) for epoch, _ in momentum.changes]
    value = _from(plan, epochs, lambda step: f"{momentum(step):g}")
    return [Derived("momentum", f"{momentum.first:g}, others at epochs {epochs}", value)]


def _from(plan: StepPlan, epochs: Sequence[float], value: Callable[[int], str]) -> str:
    """What holds from each of these epochs on, and which of them the run does not reach."""
    begins = {epoch: math.ceil(plan.steps(epoch)) for epoch in epochs}
    reached = [f"{value(step)} from step {step}" for step in begins.values() if step < plan.total_steps]
    beyond = [f"{epoch:g}" for epoch, step in begins.items() if step >= plan.total_steps]
    if beyond:
        reached.append(f"never reached in a run of {counted(plan.epochs, 'epoch', 'g')}: epoch {', '.join(beyond)}")
    return "; ".join(reached) or "none"


def _loss_scale(recipe: Recipe, plan: StepPlan) -> list[Derived]:
    """Where fp16's loss scale begins, and when it doubles."""
    if recipe.precision != "fp16":
        return []
    doubles = f"doubles after {counted(growth_steps(plan.total_steps), 'finite step')} in a row"
    return [Derived("loss scale", LOSS_SCALE_UNIT, f"{FIRST_LOSS_SCALE:g} at first, {doubles}")]


def _statistics(recipe: Recipe, plan: StepPlan) -> list[Derived]:
    """Over how many examples batch norm's statistics are recomputed."""
    if recipe.batch_norm.running != "recomputed":
        return []
    per_worker = plan.phases[-1].minibatch.per_worker
    examples = recompute_examples(recipe, plan.training_images, per_worker)
    formula = "batch_norm.recompute_examples" if recipe.batch_norm.recompute_examples else "min(N, 64 n)"
    group = per_worker * recipe.batch_norm.span
    passes = f"{counted(examples // group, 'pass')} of {counted(group, 'image')}"
    return [Derived("recomputed statistics", formula, passes)]


def lag_warning(recipe: Recipe, total_steps: int) -> str | None:
    """What an evaluation measures after few steps, where batch norm has running averages; None where nothing lags.

    At momentum 0.1 the averages are those of about the last ten steps: of a run of 50, a fifth.
    """
    if recipe.batch_norm.running != "averages" or total_steps >= FEW_STEPS:
        return None
    return (
        f"evaluations normalise by batch norm's running averages, which lag about ten steps behind the weights, and "
        f"this run has {counted(total_steps, 'step')}: errors may be of the averages, not of the weights; "
        f"batch_norm.running=recomputed measures the weights"
    )


def _factors(factor: float | tuple[float, ...]) -> str:
    return ", ".join(f"{f:g}" for f in factor) if isinstance(factor, tuple) else f"{factor:g}"


def as_text(rows: list[Derived]) -> str:
    """The derived numbers as aligned lines."""
    width = max(len(row.name) for row in rows)
    formula = max(len(row.formula) for row in rows)
    return "\n".join(f"{row.name:<{width}}  {row.formula:<{formula}}  = {row.value}" for row in rows)
