"""The answer as a document: the curve, its regimes, the hyperbola, the best settings, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchscale.records.findings import Findings, Table
from batchscale.records.provenance import environment
from batchscale.study.evidence.instrument import words_of
from batchscale.study.runner.cell import Outcome
from batchscale.study.steps_to_target import figures
from batchscale.study.steps_to_target.hyperbola import FEWEST_POINTS, Hyperbola, fit
from batchscale.study.steps_to_target.regimes import (
    DIMINISHING,
    MAXIMAL,
    PERFECT,
    Regime,
    local_slopes,
    regimes,
    slope_ranges,
)
from batchscale.study.steps_to_target.search import Search
from batchscale.study.steps_to_target.trials import Point
from batchscale.words import counted

_FEWEST_REACHED = 3
_HALF_IS_MUCH_WORSE = 1.25
_NEAR_BUDGET = 0.8
_COARSE = 0.25


@dataclass(frozen=True)
class Answer:
    """What the points say.

    Args:
        points: one a minibatch, rising.
        regimes: those seen.
        fit: None for fewer than four minibatches that reached the goal.
    """

    points: tuple[Point, ...]
    regimes: tuple[Regime, ...]
    fit: Hyperbola | None

    @property
    def reached(self) -> list[Point]:
        """The points with a step count."""
        return [point for point in self.points if point.steps is not None]

    @property
    def few_trials(self) -> bool:
        """Whether most points that reached the goal had too few trials."""
        return 2 * sum(map(_few_trials, self.reached)) > len(self.reached)

    def as_json(self, search: Search) -> dict[str, Any]:
        """The answer as numbers."""
        return {
            "goal": {search.goal.entry: search.goal.below},
            "points": [_point_json(point) for point in self.points],
            "slopes": local_slopes(*_curve(self.points)[:2]),
            "slope_ranges": slope_ranges(*_curve(self.points)),
            "regimes": [regime.as_json() for regime in self.regimes],
            "hyperbola": self.fit and self.fit.as_json(),
        }


def _few_trials(point: Point) -> bool:
    """Whether the steps hang on the luck of the draw."""
    steps, half = point.steps, point.steps_by_half
    short = point.reached < _FEWEST_REACHED
    return steps is not None and half is not None and (short or half > _HALF_IS_MUCH_WORSE * steps)


def _curve(points: Sequence[Point]) -> tuple[list[int], list[int], list[int]]:
    """B, S and S_before of the points that reached the goal."""
    found = [(point.minibatch, point.steps, point.steps_before or 0) for point in points if point.steps is not None]
    return [kn for kn, _, _ in found], [steps for _, steps, _ in found], [before for _, _, before in found]


def answer_of(points: Sequence[Point]) -> Answer:
    """Regimes and hyperbola of the points that reached the goal."""
    found = Answer(tuple(points), tuple(regimes(*_curve(points))), fit(*_curve(points)))
    if not found.few_trials:
        return found
    doubt = "most minibatches had too few trials"
    return replace(found, regimes=tuple(replace(regime, doubt=regime.doubt or doubt) for regime in found.regimes))


def _point_json(point: Point) -> dict[str, Any]:
    best = point.best
    return {
        "minibatch": point.minibatch,
        "status": "reached" if point.steps is not None else "not reached",
        "steps": point.steps,
        "images": None if point.steps is None else point.steps * point.minibatch,
        "steps_before": point.steps_before,
        "steps_by_half": point.steps_by_half,
        "budget_steps": point.budget_steps,
        "interval_steps": point.interval_steps,
        "best_value": point.best_value,
        "best_trial": best and best.number,
        "best_settings": best and dict(best.settings),
        "border": list(best.border) if best else [],
        "trials": point.trials,
        "reached": point.reached,
        "diverged": point.diverged,
        "failed": point.failed,
        "folder": best and best.folder,
    }


def findings_of(
    search: Search, outcomes: Sequence[Outcome], recipe_name: str, command: Sequence[str]
) -> tuple[Findings, dict[str, Any]]:
    """What the search found, as a document and as the numbers of the JSON answer.

    Args:
        search: that was run.
        outcomes: of its cells, in their order.
        recipe_name: the recipe's name.
        command: words of the command line.
    """
    answer = answer_of(search.points(outcomes))
    numbers = answer.as_json(search)
    findings = Findings(
        kind="steps-to-target",
        title=f"{recipe_name}: steps to {search.goal.text} against the minibatch",
        recipe=recipe_name,
        asked=_asked(search, recipe_name) + words_of([outcome.cell for outcome in outcomes]),
        answer=sentence(answer, search),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=figures.figures_of(answer.points, answer.regimes, answer.fit, search) if answer.reached else (),
        tables=(_table(answer.points, search),),
        warnings=(*warnings_of(answer, search), *_failures(outcomes)),
        result=numbers,
        environment=environment(),
    )
    return findings, numbers


def _asked(search: Search, recipe_name: str) -> str:
    held, measured = search.recipe.data.holdout, "lr / (1 - momentum), momentum" if search.has_momentum else "lr"
    return (
        f"How many steps does {recipe_name} need to {search.goal.text} on {held:,} held-out training images, at each "
        f"minibatch? {counted(search.trials, 'trial')} each, a quasi-random search over {measured}, weight decay "
        f"and the share of the lr left at the end of the step budget (linear decay, no warmup); "
        f"{search.training_images:,} training images; one seed for data order and first weights."
    )


def sentence(answer: Answer, search: Search) -> str:
    """The answer in one sentence."""
    reached = answer.reached
    if not reached:
        values = [(p.best_value, p.minibatch) for p in answer.points if p.best_value is not None]
        best = f"the best was {search.goal.value_text(min(values)[0])} at kn = {min(values)[1]:,}" if values else ""
        return f"Not reached: no trial fell to {search.goal.text}; {best or 'no trial left an evaluation'}."
    first, last = reached[0], reached[-1]
    missed = [f"{p.minibatch:,}" for p in answer.points if p.steps is None]
    said = f"Steps to {search.goal.text}: {first.steps:,} at kn = {first.minibatch:,}"
    said += f", {last.steps:,} at kn = {last.minibatch:,}" if last is not first else ""
    few = answer.regimes and answer.few_trials
    told = "too few trials to tell regimes or B_crit" if few else f"{_regimes_text(answer)}; {_fit_text(answer)}"
    return f"{said}; {told}{_missed_text(missed)}."


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


def _fit_text(answer: Answer) -> str:
    found = answer.fit
    if found is None:
        return f"no hyperbola fitted (fewer than {FEWEST_POINTS} minibatches reached the goal)"
    if found.critical_minibatch.unbounded:
        return "too few points, or too much scatter, to tell B_crit: its interval has no bound on either side"
    return (
        f"S_min (1 + B_crit / B) fits to {found.scatter_percent:.0f} % with "
        f"{found.critical_minibatch.text('B_crit', 'images')} and {found.steps_min.text('S_min', 'steps')} (95 %)"
    )


def warnings_of(answer: Answer, search: Search) -> list[str]:
    """What makes the answer doubtful, one line each."""
    said = [line for point in answer.points for line in _doubts(point, search)]
    per_worker = search.recipe.minibatch.per_worker
    if small := [f"{p.minibatch:,}" for p in answer.points if p.minibatch < per_worker]:
        said.append(
            f"kn = {', '.join(small)}: below minibatch.per_worker={per_worker}, so one worker of kn images: "
            f"batch norm, where the model has it, sees fewer images than at larger minibatches"
        )
    said += [
        f"{_place(regime)} is not sure: {regime.doubt}; give a smaller --evaluation-steps, more --trials, or more "
        f"--minibatches"
        for regime in answer.regimes
        if regime.doubt
    ]
    if answer.fit is not None and answer.fit.beyond and not answer.fit.critical_minibatch.unbounded:
        where = "below the smallest" if answer.fit.beyond == "below" else "above the largest"
        said.append(
            f"{answer.fit.critical_minibatch.text('B_crit', 'images')}: {where} minibatch that reached the goal, so a "
            f"bound, no measurement; widen --minibatches"
        )
    return said


def _doubts(point: Point, search: Search) -> list[str]:
    """Of one minibatch: its trials, its budget, its interval, its border."""
    at = f"kn = {point.minibatch:,}"
    steps, half = point.steps, point.steps_by_half
    if steps is None or half is None:
        best = "" if point.best_value is None else f": the best was {search.goal.value_text(point.best_value)}"
        return [
            f"{at}: goal not reached by {counted(point.trials, 'trial')} of {counted(point.budget_steps, 'step', ',')} "
            f"({point.diverged} diverged){best}; give more --trials, a longer budget, or an easier goal"
        ]
    said = []
    if _few_trials(point):
        said.append(
            f"{at}: too few trials to say: {point.reached} of {point.trials} reached the goal, and half of them would "
            f"have found {counted(round(half), 'step', ',')} in place of {steps:,}; give more --trials"
        )
    if steps > _NEAR_BUDGET * point.budget_steps:
        said.append(
            f"{at}: {counted(steps, 'step', ',')} of a budget of {point.budget_steps:,}: trials that need more "
            f"were cut; raise epochs or --min-steps"
        )
    if point.interval_steps > _COARSE * steps:
        said.append(
            f"{at}: {counted(steps, 'step', ',')}, evaluated every {point.interval_steps:,}: coarse; "
            f"lower --evaluation-steps"
        )
    if point.best and point.best.border:
        names = ", ".join(f"{name} {point.best.settings[name]:.4g}" for name in point.best.border)
        said.append(
            f"{at}: the best trial lies on the border of the search space ({names}): better ones may lie beyond; "
            f"widen {', '.join(_FLAGS[name] for name in point.best.border)}"
        )
    return said


_FLAGS = {
    "effective_lr": "--lr", "momentum": "--momentum", "weight_decay": "--weight-decay", "final_lr": "--final-lr",
}  # fmt: skip


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed"]


def _table(points: Sequence[Point], search: Search) -> Table:
    names = [dimension.name for dimension in search.space(search.minibatches[0]).dimensions]
    rows = []
    for point in points:
        best = point.best
        reached = None if point.steps is None else point.steps * point.minibatch
        rows.append(
            (
                point.minibatch,
                "not reached" if point.steps is None else point.steps,
                point.interval_steps,
                point.budget_steps,
                None if reached is None else round(reached / search.training_images, 2),
                None if point.steps_by_half is None else round(point.steps_by_half, 1),
                None if point.best_value is None else float(f"{point.best_value:.4g}"),
                *(None if best is None else float(f"{best.settings[name]:.4g}") for name in names),
                f"{point.reached} of {point.trials}",
                point.diverged,
                ", ".join(best.border) if best else None,
            )
        )
    return Table(
        title="Every minibatch",
        columns=(
            "kn", "steps", "evaluated every", "budget", "epochs", "steps by half", f"best {search.goal.measure}",
            *(name.replace("_", " ") for name in names), "reached", "diverged", "on border",
        ),
        rows=tuple(rows),
        caption="steps: the first evaluation below the goal, over all trials. steps by half: what half of the trials "
        "would have found, on average. Settings are those of the best trial.",
    )  # fmt: skip
