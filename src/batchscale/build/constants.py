"""The constants that a recipe's scaling rule changes beside the lr: planned, checked, and said with their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

from batchscale.build.trunk import Trunk, run_schedule
from batchscale.errors import RecipeError
from batchscale.minibatch import Phase, StepPlan
from batchscale.recipe.schema import Recipe
from batchscale.update.constants import PlannedConstants
from batchscale.update.rules import RULES

_JUMP = 0.4  # kappa (1 - beta1): in a trial a switch of betas alone cost 1.2 nats at 0.8, 0.07 at 0.4, none at 0.2


def run_constants(recipe: Recipe, plan: StepPlan, trunk: Trunk | None = None) -> PlannedConstants:
    """Every constant that rules change, at every step of a run.

    Args:
        recipe: resolved.
        plan: from ``run_plan``.
        trunk: of a branch.

    Raises:
        RecipeError: a rule of constants that the optimizer has not, one that would make a beta 0 or negative, or one
            that a scaled decay would count twice.
    """
    if (fastest := plan.fastest) is not plan:
        run_constants(recipe, fastest, trunk)  # what growth may come to during the run is refused beforehand
    root = trunk
    while root is not None and root.trunk is not None:
        root = root.trunk
    options = recipe.optimizer.options()
    names = dict.fromkeys(name for rule in RULES.values() for name in rule.constants)
    constants = PlannedConstants(
        run_schedule(recipe, plan, trunk),
        (root.recipe if root else recipe).learning_rate.scaling,
        recipe.learning_rate.reference_minibatch,
        {name: options[name] for name in names if name in options},
        bool(options.get("scale_decay", False)),
    )
    for rule in _rules(constants):
        _check_optimizer(recipe, rule)
    if constants.scales_decay and "adascale" in _rules(constants):
        raise RecipeError(
            "optimizer.scale_decay=true with learning_rate.scaling=adascale: a step of gain r takes the decay of r "
            "steps of the reference minibatch already, for its lr is r times theirs; use optimizer.scale_decay=false"
        )
    for phase in _phases(plan, trunk):
        for name in constants.changed():
            _check_beta(recipe, constants, name, phase)
    return constants


def _rules(constants: PlannedConstants) -> list[str]:
    return list(dict.fromkeys([constants.rule, *(branch.rule for branch in constants.schedule.branches)]))


def _phases(plan: StepPlan, trunk: Trunk | None) -> list[Phase]:
    """The phases of the run's own steps."""
    first_step = trunk.step if trunk else 0
    return [phase for phase in plan.phases if plan.steps_of(phase).stop > first_step]


def _check_optimizer(recipe: Recipe, rule: str) -> None:
    """Raise where a rule is about constants that the optimizer has not."""
    options = recipe.optimizer.options()
    lacking = [name for name in RULES[rule].constants if name not in options]
    if lacking:
        raise RecipeError(
            f"learning_rate.scaling={rule} with optimizer.name={recipe.optimizer.name}: the rule scales "
            f"{' and '.join(lacking)}, which this optimizer has not; use learning_rate.scaling=linear or sqrt, or an "
            f"optimizer such as adamw"
        )


def _check_beta(recipe: Recipe, constants: PlannedConstants, name: str, phase: Phase) -> None:
    """Raise where a rule leaves nothing of a beta: 1 - kappa (1 - beta) at 0 or below."""
    for factor, stated in constants.stages(name, phase.first_step):
        scaled = RULES[factor.rule].constants[name]
        if not scaled.ends or not stated or scaled.value(stated, factor.kappa) > 0:
            continue
        minibatch, per_worker = phase.minibatch.images, phase.minibatch.per_worker
        limit = 1 / (1 - Fraction(str(float(stated))))  # kappa must stay below it
        workers = math.ceil(limit / factor.kappa * minibatch / per_worker) - 1
        way = (
            f"the largest minibatch that works is {workers * per_worker}, minibatch.workers={workers}"
            if workers > 0
            else "no minibatch of whole workers works"
        )
        raise RecipeError(
            f"learning_rate.scaling={factor.rule} at kn = {minibatch}: kappa = {_ratio(factor.kappa)} makes {name} "
            f"1 - kappa (1 - {float(stated):g}) = {float(scaled.value(stated, factor.kappa)):g}: kappa must stay below "
            f"{_ratio(limit)}; {way}; or use learning_rate.scaling=sqrt"
        )


def check_takes(recipe: Recipe, named: object, constants: PlannedConstants) -> None:
    """Raise where an optimizer of somebody else's has no place for the constants that a rule changes.

    Raises:
        RecipeError: an attribute that is to be set between steps is missing.
    """
    for name in constants.changed():
        if not hasattr(named, name):
            raise RecipeError(
                f"learning_rate.scaling={constants.rule} with optimizer.name={recipe.optimizer.name}: the rule changes "
                f"{name}, and {type(named).__name__} has no attribute of this name to be set between steps; give it "
                f"one, or use learning_rate.scaling=sqrt"
            )


def jump_warning(recipe: Recipe, plan: StepPlan, trunk: Trunk | None = None) -> str | None:
    """That a rule makes Adam's mean so short that little of it is left; None where it does not."""
    plan = plan.fastest
    constants, entry = run_constants(recipe, plan, trunk), recipe.learning_rate
    if "beta1" not in constants.changed():
        return None
    shares = {
        phase.minibatch.images: 1 - constants.constant("beta1", phase.first_step) for phase in _phases(plan, trunk)
    }
    minibatch, share = max(shares.items(), key=lambda item: item[1])
    if share < _JUMP - 1e-9 or constants.stated["beta1"] <= 1 - share:
        return None
    return (
        f"learning_rate.scaling={entry.scaling} at kn = {minibatch}: kappa (1 - beta1) = {share:.3g}, so beta1 is "
        f"{1 - share:.3g}; from about {_JUMP:g} on a jump of the betas alone has cost more than the minibatch gained; "
        f"a smaller minibatch, or learning_rate.scaling=half_life_sqrt, leaves beta1 longer"
    )


def constant_rows(recipe: Recipe, plan: StepPlan, trunk: Trunk | None) -> Iterator[tuple[str, str, str]]:
    """(name, formula, value) of every constant that a rule changes."""
    constants = run_constants(recipe, plan, trunk)
    phases = _phases(plan, trunk)
    for name in constants.changed():
        stages = constants.stages(name, phases[-1].first_step)
        formulas = dict.fromkeys(RULES[factor.rule].constants[name].formula.format(c=name) for factor, _ in stages)
        value = partial(constants.constant, name)
        yield from _row(constants, phases, name, ", then ".join(formulas), constants.stated[name], value)
    if (decay := recipe.model.ema_decay) is not None:
        average = partial(_averaged, constants, decay)
        yield from _row(constants, phases, "ema_decay", "ema_decay^kappa", decay, average)
    if constants.scales_decay:
        stated = recipe.optimizer.weight_decay
        decays = partial(_decayed, constants, stated)
        yield from _row(constants, phases, "weight_decay", "weight_decay kappa / the lr's factor", stated, decays)


def _averaged(constants: PlannedConstants, decay: float, step: int) -> float:
    return math.pow(decay, constants.averaged_steps(step))


def _decayed(constants: PlannedConstants, decay: float, step: int) -> float:
    return decay * constants.decay_factor(step)


def _row(
    constants: PlannedConstants,
    phases: list[Phase],
    name: str,
    formula: str,
    stated: float,
    value: Callable[[int], float],
) -> Iterator[tuple[str, str, str]]:
    """A constant in every phase, with the kappa that it comes from; nothing where no phase changes it."""
    steps = [phase.first_step for phase in phases]
    if all(value(step) == stated for step in steps):
        return
    texts = [f"{value(step):.6g} at kappa = {_ratio(constants.kappa(step))}" for step in steps]
    begins = [""] if len(steps) == 1 else [f" from step {step}" for step in steps]
    yield name, f"{formula}, {stated:g} at kappa = 1", "; ".join(map(str.__add__, texts, begins))


def _ratio(number: Fraction) -> str:
    return f"{float(number):.6g}"
