"""Numbers that follow from a recipe, each with its formula: printed before training starts, kept in the run."""

from __future__ import annotations

from dataclasses import dataclass

from batchscale.minibatch import Minibatch, StepPlan, place_workers
from batchscale.recipe.schema import Recipe
from batchscale.update.schedule import Decay, Schedule, scaled_lr


@dataclass(frozen=True)
class Derived:
    """One derived number: its name, formula and value as text."""

    name: str
    formula: str
    value: str


def plan_of(recipe: Recipe, training_images: int) -> StepPlan:
    """The steps of a recipe on so many training images."""
    images = recipe.minibatch.workers * recipe.minibatch.per_worker
    return StepPlan(images, training_images, recipe.epochs, recipe.data.partial)


def schedule_of(recipe: Recipe, plan: StepPlan) -> Schedule:
    """The lr of every step; durations in epochs converted once, here."""
    entry = recipe.learning_rate
    warmup = (
        float(entry.warmup.steps) if entry.warmup.steps is not None else float(plan.steps(entry.warmup.epochs or 0))
    )
    decay = Decay(
        entry.decay.kind,
        tuple(float(plan.steps(e)) for e in entry.decay.epochs),
        entry.decay.factor,
        entry.decay.power,
        entry.decay.final,
    )
    target = scaled_lr(entry.reference, entry.reference_minibatch, plan.minibatch_images, entry.scaling)
    return Schedule(entry.reference, target, plan.total_steps, entry.warmup.kind, warmup, decay)


def derived_numbers(recipe: Recipe, training_images: int, processes: int) -> list[Derived]:
    """Minibatch, steps, workers per process and the lr at each phase, each with its formula."""
    k, n = recipe.minibatch.workers, recipe.minibatch.per_worker
    minibatch = Minibatch(k, n)
    plan = plan_of(recipe, training_images)
    schedule = schedule_of(recipe, plan)
    entry = recipe.learning_rate
    placed = [len(workers) for workers in place_workers(k, processes, recipe.batch_norm.span)]
    factor = {"linear": "kn / reference_minibatch", "sqrt": "sqrt(kn / reference_minibatch)", "none": "1"}[
        entry.scaling
    ]
    rows = [
        Derived("minibatch", f"kn = workers x per_worker = {k} x {n}", f"{minibatch.images} images"),
        Derived("training images", "N, after data.holdout", f"{training_images}"),
        Derived(
            "steps per epoch", f"N / kn, partial minibatch: {recipe.data.partial}", f"{float(plan.steps_per_epoch):g}"
        ),
        Derived("steps", f"ceil(epochs x steps per epoch), epochs = {recipe.epochs:g}", f"{plan.total_steps}"),
        Derived("workers per process", f"{k} workers on {processes} processes", ", ".join(map(str, placed))),
        Derived(
            "target lr",
            f"reference x {factor} = {entry.reference:g} x {schedule.target / entry.reference:g}"
            if entry.reference
            else "reference = 0",
            f"{schedule.target:g}",
        ),
    ]
    if entry.warmup.kind != "none":
        rows.append(
            Derived(
                "warmup",
                f"{entry.warmup.kind}, from lr {schedule(0):g} for {schedule.warmup_steps:g} steps",
                f"lr {schedule(int(schedule.warmup_steps) + 1):g} after it",
            )
        )
    if entry.decay.kind == "step":
        phases = [f"lr {schedule(int(s) + 1):g} from step {s:g}" for s in schedule.decay.steps]
        rows.append(
            Derived(
                "decay", f"x {_factors(entry.decay.factor)} at epochs {list(entry.decay.epochs)}", "; ".join(phases)
            )
        )
    rows.append(Derived("last lr", f"decay {entry.decay.kind}", f"{schedule(plan.total_steps - 1):.4g}"))
    return rows


def _factors(factor: float | tuple[float, ...]) -> str:
    return ", ".join(f"{f:g}" for f in factor) if isinstance(factor, tuple) else f"{factor:g}"


def as_text(rows: list[Derived]) -> str:
    """The derived numbers as aligned lines."""
    width = max(len(row.name) for row in rows)
    formula = max(len(row.formula) for row in rows)
    return "\n".join(f"{row.name:<{width}}  {row.formula:<{formula}}  = {row.value}" for row in rows)
