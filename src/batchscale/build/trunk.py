"""The trunk of a branch: the run whose checkpoint it goes on from, as far as the branch's steps hang on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from batchscale.build.examples import examples_of, told_of_examples
from batchscale.build.growing import with_decisions
from batchscale.build.planning import BranchedFrom, as_long, plan_of, schedule_of
from batchscale.errors import CheckpointError, RecipeError
from batchscale.minibatch import Change, Minibatch, StepPlan
from batchscale.placement import place_workers
from batchscale.recipe import Recipe, identity, recipe_from
from batchscale.update.growing import Decision, GrowingPlan
from batchscale.update.schedule import BranchFactor, PlannedSchedule

_MAY_DIFFER = ("minibatch.workers", "learning_rate.", "optimizer.", "model.ema_decay", "epochs", "branch.")
"""What a branch's recipe may change: workers, lr, constants of the optimizer, the average of the weights, length."""
_MUST_STAY = ("optimizer.name",)
_GROWTH = "minibatch.growth"  # the trunk's, times f; or none: no further growth


@dataclass(frozen=True)
class Trunk:
    """What a branch goes on from.

    Attributes:
        folder: of the trunk, for the record.
        step: steps of the trunk, at whose checkpoint the branch begins.
        state_sha256: of that checkpoint's state.
        recipe: of the trunk.
        trunk: the trunk's own, where it is a branch itself.
        decisions: about the minibatch, up to the step.
    """

    folder: str
    step: int
    state_sha256: str
    recipe: Recipe
    trunk: Trunk | None = None
    decisions: tuple[Decision, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For branch.json: all that a resume of the branch needs, without the trunk's folder."""
        return {
            "folder": self.folder,
            "step": self.step,
            "state_sha256": self.state_sha256,
            "recipe": self.recipe.model_dump(mode="json"),
            "trunk": self.trunk.as_json() if self.trunk else None,
            "decisions": [decision.as_json() for decision in self.decisions],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Of branch.json."""
        inner = content["trunk"]
        recipe = recipe_from(content["recipe"])
        trunk = cls.from_json(inner) if inner else None
        decisions = tuple(Decision.from_json(decision) for decision in content.get("decisions", ()))
        return cls(content["folder"], content["step"], content["state_sha256"], recipe, trunk, decisions)

    def check(self, recipe: Recipe) -> None:
        """Raise unless a recipe may go on from here.

        Raises:
            CheckpointError: names the entries that a branch may not change.
        """
        trunk_entries, entries = identity(self.recipe), identity(recipe)
        names = [name for name in sorted({*trunk_entries, *entries}) if trunk_entries.get(name) != entries.get(name)]
        refused = [name for name in names if not name.startswith(_MAY_DIFFER) or name in _MUST_STAY]
        if recipe.minibatch.growth.kind == "none" or self._same_phases(recipe):
            refused = [name for name in refused if not name.startswith(_GROWTH)]
        rules = [entries["learning_rate.scaling"], trunk_entries["learning_rate.scaling"]]
        if "adascale" in rules and len(set(rules)) > 1:
            raise CheckpointError(
                f"--branch {self.folder}: learning_rate.scaling={rules[0]}, and the trunk has {rules[1]}: adascale "
                f"goes on from steps that were measured, and nothing goes on from adascale's; use the trunk's rule"
            )
        if "minibatch.per_worker" in refused:
            raise CheckpointError(
                f"--branch {self.folder}: minibatch.per_worker={entries['minibatch.per_worker']}, and the trunk has "
                f"{trunk_entries['minibatch.per_worker']}: a branch has other workers, never other "
                f"{examples_of(recipe)} of a worker; change minibatch.workers"
            )
        if refused:
            listed = ", ".join(
                f"{name} ({trunk_entries.get(name)} there, {entries.get(name)} here)" for name in refused[:5]
            )
            raise CheckpointError(
                f"--branch {self.folder}: the recipe differs from the trunk's in more than a branch may: {listed}; it "
                f"may change minibatch.workers, learning_rate, epochs, branch.seed, model.ema_decay and the "
                f"optimizer's constants; else give the trunk's recipe"
            )

    def _same_phases(self, recipe: Recipe) -> bool:
        """Whether a branch gives the trunk's phases times f, as far as it is long."""
        if recipe.minibatch.growth.kind != "phases" or self.recipe.minibatch.growth.kind != "phases":
            return False
        phases = recipe.minibatch.phases()
        f = self.factor(recipe)
        scaled = [(epoch, int(k * f), n) for epoch, k, n in self.recipe.minibatch.phases()]
        return phases == scaled[: len(phases)]

    def factor(self, recipe: Recipe) -> Fraction:
        """f, the workers of a branch's recipe over those of the trunk's."""
        return Fraction(recipe.minibatch.workers, self.recipe.minibatch.workers)

    def scaled(self, recipe: Recipe, minibatch: Minibatch) -> Minibatch:
        """f times the workers of one of the trunk's minibatches; n stays.

        Raises:
            RecipeError: no whole number of workers.
        """
        workers = self.factor(recipe) * minibatch.workers
        if workers.denominator > 1:
            raise RecipeError(
                f"minibatch.workers={recipe.minibatch.workers}: {self.factor(recipe)} of the trunk's "
                f"{minibatch.workers} workers at step {self.step} is no whole number; use a multiple of "
                f"{self.recipe.minibatch.workers}"
            )
        return Minibatch(int(workers), minibatch.per_worker)

    def plan(self, training_images: int, epochs: float = 0.0) -> StepPlan:
        """The trunk's own steps; as if it were so many epochs long, where it is shorter."""
        plan = run_plan(as_long(self.recipe, epochs), training_images, self.trunk)
        if isinstance(plan, GrowingPlan):
            plan.restore(self.decisions)
        return plan


def run_plan(recipe: Recipe, training_images: int, trunk: Trunk | None = None) -> StepPlan:
    """The steps of a run: of a branch the trunk's plan with one more change, where the branch begins.

    Args:
        recipe: resolved.
        training_images: N.
        trunk: of a branch.

    Raises:
        RecipeError: minibatches that do not fit the data or groups of workers, changes that do not fit the run, or a
            branch that has no step left, or begins where the plan cannot change.
    """
    if trunk is None:
        for name, value, does in (
            ("seed", recipe.branch.seed, "orders the examples"),
            ("warmup", recipe.branch.warmup, "is of the lr"),
        ):
            if value:
                raise RecipeError(f"branch.{name}={value}: {does} of a branch; give its trunk with --branch RUN")
        return plan_of(recipe, training_images)
    trunk_plan = trunk.plan(training_images)
    epoch = trunk_plan.epoch_at(trunk.step)
    _check_begins(recipe, trunk_plan, trunk.step, epoch)
    longer = trunk.plan(training_images, recipe.epochs)  # growth goes on where the trunk would have grown later
    grown = list(zip(longer.growth, longer.phases[1:], strict=True))
    earlier = [change for change, phase in grown if phase.first_step < trunk.step]
    later = [change for change, phase in grown if phase.first_step > trunk.step]
    if recipe.minibatch.growth.kind == "none":
        later = []
    end = Fraction(str(recipe.epochs))
    changes = (Change(epoch, trunk_plan.minibatch_at(trunk.step)), *(each for each in later if each.epoch < end))
    scaled = (Change(change.epoch, trunk.scaled(recipe, change.minibatch)) for change in changes)
    with told_of_examples(recipe):
        plan = StepPlan(trunk_plan.minibatch, training_images, recipe.epochs, trunk_plan.partial, (*earlier, *scaled))
    for phase in plan.phases:
        place_workers(phase.minibatch.workers, 1, recipe.batch_norm.span)
    return with_decisions(recipe, plan, trunk.decisions)


def _check_begins(recipe: Recipe, trunk_plan: StepPlan, step: int, epoch: Fraction) -> None:
    """Raise where a branch cannot begin after a step of its trunk, or has no step left."""
    if trunk_plan.partial == "drop" and epoch.denominator > 1:
        raise RecipeError(
            f"data.partial=drop: step {step} of the trunk lies inside an epoch ({float(epoch):.6g}), whose last "
            f"partial minibatch would be another one; branch where an epoch ends, or train the trunk with "
            f"data.partial=carry"
        )
    if Fraction(str(recipe.epochs)) <= epoch:
        raise RecipeError(
            f"epochs={recipe.epochs:g}: the branch begins at epoch {float(epoch):.6g} of its trunk, so no step is "
            f"left; give more epochs"
        )


def run_schedule(recipe: Recipe, plan: StepPlan, trunk: Trunk | None = None) -> PlannedSchedule:
    """The lr of every step of a run: of a branch its trunk's, as a function of examples seen, times the rule.

    Args:
        recipe: resolved.
        plan: from ``run_plan``.
        trunk: of a branch.

    Raises:
        RecipeError: see ``schedule_of``.
    """
    if trunk is None:
        return schedule_of(recipe, plan)
    images, stops = plan.training_images, Fraction(10**9)  # the epoch from which growth takes no decay any more
    branches, child, root = [], recipe, trunk
    while True:
        factor, scaling = float(root.factor(child)), child.learning_rate.scaling
        branches.append(BranchFactor(root.step, factor, scaling, child.branch.warmup))
        if child.minibatch.growth.kind == "none":
            stops = min(stops, root.plan(images).epoch_at(root.step))
        if root.trunk is None:
            break
        child, root = root.recipe, root.trunk
    longer = root.plan(images, recipe.epochs)
    grown = sum(phase.first_epoch <= stops for phase in longer.phases[1:])
    # The first trunk's own lr by its own rule, as it was; a branch's rule acts from its first step on.
    entry = recipe.learning_rate.model_copy(update={"scaling": root.recipe.learning_rate.scaling})
    minibatch = recipe.minibatch.model_copy(update={"growth": root.recipe.minibatch.growth})
    of_root = recipe.model_copy(update={"learning_rate": entry, "minibatch": minibatch})
    return schedule_of(of_root, plan, BranchedFrom(root.plan(images), grown, tuple(reversed(branches))))
