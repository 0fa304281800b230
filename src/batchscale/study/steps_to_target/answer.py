"""Steps to the goal in numbers: the curve, its regimes, the hyperbola."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchscale.hyperbola import Hyperbola, fit
from batchscale.study.examples import parts_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.steps_to_target.luck import CriticalMinibatch, half_efficiency
from batchscale.study.steps_to_target.question import Question
from batchscale.study.steps_to_target.regimes import Regime, local_slopes, regimes, slope_ranges
from batchscale.study.steps_to_target.search import search_of
from batchscale.study.steps_to_target.trials import Reached

_FEWEST_REACHED = 3
_HALF_IS_MUCH_WORSE = 1.25


@dataclass(frozen=True)
class Answer:
    """What the points say.

    Args:
        points: one a minibatch, rising.
        regimes: those seen.
        fit: None for fewer than four minibatches that reached the goal.
        half: the critical minibatch of the fit, with an interval that holds the luck of the search, too.
    """

    points: tuple[Reached, ...]
    regimes: tuple[Regime, ...]
    fit: Hyperbola | None
    half: CriticalMinibatch

    @property
    def reached(self) -> list[Reached]:
        """The points with a step count."""
        return [point for point in self.points if point.steps is not None]

    @property
    def few_trials(self) -> bool:
        """Whether most points that reached the goal had too few trials."""
        return _mostly_few(self.reached)


def few_trials(point: Reached) -> bool:
    """Whether the steps hang on the luck of the draw."""
    steps, half = point.steps, point.steps_by_half
    short = point.reached < _FEWEST_REACHED
    return steps is not None and half is not None and (short or half > _HALF_IS_MUCH_WORSE * steps)


def _mostly_few(reached: Sequence[Reached]) -> bool:
    return 2 * sum(map(few_trials, reached)) > len(reached)


def _curve(points: Sequence[Reached]) -> tuple[list[int], list[int], list[int]]:
    """B, S and S_before of the points that reached the goal."""
    reached = [(point.minibatch, point.steps, point.steps_before or 0) for point in points if point.steps is not None]
    return [kn for kn, _, _ in reached], [steps for _, steps, _ in reached], [last for _, _, last in reached]


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The points of all trials, and what they say."""
    return answer_of_points(search_of(case).points(outcomes))


def answer_of_points(points: Sequence[Reached]) -> Answer:
    """Regimes and hyperbola of the points that reached the goal."""
    few = _mostly_few([point for point in points if point.steps is not None])
    doubt = "most minibatches had too few trials" if few else None
    seen = (replace(regime, doubt=regime.doubt or doubt) for regime in regimes(*_curve(points)))
    return Answer(tuple(points), tuple(seen), fit(*_curve(points)), half_efficiency(points, doubt))


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    parts, each = parts_of(case.recipe)
    in_parts = {}
    if parts and answer.fit is not None:
        in_parts[f"critical_minibatch_{parts}"] = asdict(answer.fit.critical_minibatch.times(each))
    return {
        **case.question.goal.as_json(),
        "points": [_point_json(point) for point in answer.points],
        "slopes": local_slopes(*_curve(answer.points)[:2]),
        "slope_ranges": slope_ranges(*_curve(answer.points)),
        "regimes": [regime.as_json() for regime in answer.regimes],
        "hyperbola": answer.fit and answer.fit.as_json(),
        **in_parts,
        "critical": [answer.half.as_json(parts, each)],
    }


def _point_json(point: Reached) -> dict[str, Any]:
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
