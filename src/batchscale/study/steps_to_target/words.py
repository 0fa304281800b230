"""Steps to the goal in words: the curve, its regimes, the critical minibatch, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.hyperbola import FEWEST_POINTS
from batchscale.study.evidence.instrument import words_of
from batchscale.study.examples import parts_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.steps_to_target.answer import Answer, few_trials
from batchscale.study.steps_to_target.luck import CriticalMinibatch
from batchscale.study.steps_to_target.question import Question, has_momentum, images_left
from batchscale.study.steps_to_target.regimes import DIMINISHING, MAXIMAL, PERFECT, Regime
from batchscale.study.steps_to_target.trials import Goal, Reached
from batchscale.words import counted

_NEAR_BUDGET = 0.8
_COARSE = 0.25
_FLAGS = {
    "effective_lr": "--lr", "momentum": "--momentum", "weight_decay": "--weight-decay", "final_lr": "--final-lr",
}  # fmt: skip


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"{case.recipe_name}: steps to {case.question.goal.text} against the minibatch"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    question = case.question
    measured = "lr / (1 - momentum), momentum" if has_momentum(case.recipe) else "lr"
    return (
        f"How many steps does {case.recipe_name} need to {question.goal.text} on {case.recipe.data.holdout:,} held-out "
        f"training images, at each "
        f"minibatch? {counted(question.trials, 'trial')} each, a quasi-random search over {measured}, weight decay "
        f"and the share of the lr left at the end of the step budget (linear decay, no warmup){_unsearched(case)}; "
        f"{images_left(case):,} training images; one seed for data order and first weights."
        f"{words_of([outcome.cell for outcome in outcomes])}"
    )


def _unsearched(case: Case[Question]) -> str:
    """What a search of Adam leaves as it is, though its best may move with the minibatch."""
    betas = [name for name in ("beta1", "beta2", "epsilon") if name in case.recipe.optimizer.options()]
    return f"; {', '.join(betas)} stay the recipe's" if betas else ""


def sentence(case: Case[Question], answer: Answer) -> str:
    """The answer in one sentence."""
    reached, goal = answer.reached, case.question.goal
    if not reached:
        came = "fell" if goal.better == "lower" else "rose"
        return f"Not reached: no trial {came} to {goal.text}; {_best_text(answer, goal)}."
    first, last = reached[0], reached[-1]
    missed = [f"{p.minibatch:,}" for p in answer.points if p.steps is None]
    steps = f"Steps to {goal.text}: {first.steps:,} at kn = {first.minibatch:,}"
    steps += f", {last.steps:,} at kn = {last.minibatch:,}" if last is not first else ""
    few = answer.regimes and answer.few_trials
    curve = "too few trials to tell regimes or B_crit" if few else f"{_regimes_text(answer)}; {_fit_text(case, answer)}"
    return f"{steps}; {curve}{_missed_text(missed)}."


def _best_text(answer: Answer, goal: Goal) -> str:
    values = [(point.best_value, point.minibatch) for point in answer.points if point.best_value is not None]
    if not values:
        return "no trial left an evaluation"
    value, minibatch = min(values, key=lambda pair: (goal.loss(pair[0]), pair[1]))
    return f"the best was {goal.value_text(value)} at kn = {minibatch:,}"


def _missed_text(missed: Sequence[str]) -> str:
    return f"; not reached at kn = {', '.join(missed)}" if missed else ""


def _regimes_text(answer: Answer) -> str:
    if not answer.regimes:
        return "too few minibatches reached the goal to tell regimes"
    parts = [f"{_place(regime)}{' (not sure)' if regime.doubt else ''}" for regime in answer.regimes]
    seen = {regime.name for regime in answer.regimes}
    unseen = [name for name in (PERFECT, DIMINISHING, MAXIMAL) if name not in seen]
    return ", ".join(parts) + (f" ({' and '.join(unseen)} not seen)" if unseen else "")


def _place(regime: Regime) -> str:
    first, last = regime.minibatches[0], regime.minibatches[-1]
    return f"{regime.name} {f'at {first:,}' if first == last else f'from {first:,} to {last:,}'}"


def _fit_text(case: Case[Question], answer: Answer) -> str:
    hyperbola = answer.fit
    if hyperbola is None:
        return f"no hyperbola fitted (fewer than {FEWEST_POINTS} minibatches reached the goal)"
    if hyperbola.critical_minibatch.unbounded:
        return "too few points, or too much scatter, to tell B_crit: its interval has no bound on either side"
    parts, each = parts_of(case.recipe)
    critical = hyperbola.critical_minibatch
    in_parts = f", that is {critical.times(each).text('B_crit', parts)}," if parts else ""
    return (
        f"S_min (1 + B_crit / B) fits to {hyperbola.scatter_percent:.0f} % with "
        f"{critical.text('B_crit', 'images')}{in_parts} and "
        f"{hyperbola.steps_min.text('S_min', 'steps')} (95 %){_half_text(answer.half, parts, each)}"
    )


def _half_text(half: CriticalMinibatch, parts: str, each: int) -> str:
    """The interval that is to be compared with other ways to the critical minibatch."""
    if half.minibatch is None:
        return ""
    in_parts = f", {half.interval_text(each)} {parts}" if parts else ""
    return f"; half efficiency, with the luck of the search: {half.interval_text()} images{in_parts} (90 %)"


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What makes the answer doubtful, one line each."""
    for point in answer.points:
        yield from _doubts(point, case.question.goal)
    per_worker = case.recipe.minibatch.per_worker
    if small := [f"{p.minibatch:,}" for p in answer.points if p.minibatch < per_worker]:
        yield (
            f"kn = {', '.join(small)}: below minibatch.per_worker={per_worker}, so one worker of kn images: "
            f"batch norm, where the model has it, sees fewer images than at larger minibatches"
        )
    own, (low, high) = case.recipe.optimizer.weight_decay, case.question.weight_decay
    if own and not low <= own <= high:
        yield (
            f"weight decay was searched from {low:g} to {high:g}, without the recipe's own {own:g}: no trial has it; "
            f"widen --weight-decay"
        )
    for regime in answer.regimes:
        if regime.doubt:
            yield (
                f"{_place(regime)} is not sure: {regime.doubt}; give a smaller --evaluation-steps, more --trials, or "
                f"more --minibatches"
            )
    if answer.fit is not None and answer.fit.beyond and not answer.fit.critical_minibatch.unbounded:
        where = "below the smallest" if answer.fit.beyond == "below" else "above the largest"
        yield (
            f"{answer.fit.critical_minibatch.text('B_crit', 'images')}: {where} minibatch that reached the goal, so a "
            f"bound, no measurement; widen --minibatches"
        )
    yield from _doubts_of_half(answer)
    yield from (f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed")


def _doubts_of_half(answer: Answer) -> Iterator[str]:
    """Of the critical minibatch: trials that still move it, and a curve of another form."""
    half = answer.half
    if half.unsettled:
        by_half = f"{half.by_half:.3g} images" if half.as_json()["minibatch_by_half"] else "none"
        yield (
            f"B_crit is unsettled: half of the trials would have told {by_half} in place of {half.minibatch:.3g}; "
            f"give more --trials"
        )
    enough = not any(map(few_trials, answer.reached))  # else the luck of some is not known
    if answer.fit is not None and half.minibatch is not None and half.other_form and enough:
        yield (
            f"the points lie {answer.fit.scatter_percent:.0f} % off S_min (1 + B_crit / B), and the luck of the search "
            f"explains {half.luck_percent:.0f} %: the curve may have another form, and no one B_crit"
        )


def _doubts(point: Reached, goal: Goal) -> Iterator[str]:
    """Of one minibatch: its trials, its budget, its interval, its border."""
    where = f"kn = {point.minibatch:,}"
    steps, half = point.steps, point.steps_by_half
    if steps is None or half is None:
        best = "" if point.best_value is None else f": the best was {goal.value_text(point.best_value)}"
        yield (
            f"{where}: goal not reached by {counted(point.trials, 'trial')} of "
            f"{counted(point.budget_steps, 'step', ',')} "
            f"({point.diverged} diverged){best}; give more --trials, a longer budget, or an easier goal"
        )
        return
    if few_trials(point):
        yield (
            f"{where}: too few trials to say: {point.reached} of {point.trials} reached the goal, and half of them "
            f"would have found {counted(round(half), 'step', ',')} in place of {steps:,}; give more --trials"
        )
    if steps > _NEAR_BUDGET * point.budget_steps:
        yield (
            f"{where}: {counted(steps, 'step', ',')} of a budget of {point.budget_steps:,}: trials that need more "
            f"were cut; raise epochs or --min-steps"
        )
    if point.interval_steps > _COARSE * steps:
        yield (
            f"{where}: {counted(steps, 'step', ',')}, evaluated every {point.interval_steps:,}: coarse; "
            f"lower --evaluation-steps"
        )
    if point.best and point.best.border:
        names = ", ".join(f"{name} {point.best.settings[name]:.4g}" for name in point.best.border)
        yield (
            f"{where}: the best trial lies on the border of the search space ({names}): better ones may lie beyond; "
            f"widen {', '.join(_FLAGS[name] for name in point.best.border)}"
        )
