"""A grid in words: the best way beside the first one, and what makes the comparison doubtful."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.study.evidence.instrument import lagging
from batchscale.study.evidence.quantities import score_of
from batchscale.study.grid.answer import Answer, Way, by_way
from batchscale.study.grid.question import Question
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.words import counted, has


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"{case.recipe_name}: {counted(len(case.question.ways), 'way')} to train"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    return (
        f"{counted(len(case.question.ways), 'way')} to train {case.recipe_name}: "
        f"{counted(case.question.seeds, 'seed')} each, "
        f"{counted(case.recipe.epochs, 'epoch', 'g')} where a way does not say otherwise."
    )


def sentence(case: Case[Any], answer: Answer) -> str:
    """The best way, and its difference to the first one with the difference's spread."""
    if not answer.known:
        return "No comparison: of every way a run diverged, or none has a result."
    best, reference = answer.best(answer.known), answer.ways[0]
    lowest, above, below = ("Lowest", "above", "below") if answer.judged.falls else ("Highest", "below", "above")
    first = f"{lowest} mean {best.judged.words}: {best.name}, {_with_spread(best)}"
    if reference.mean is None:
        return f"{first}; the first way, {reference.name}, has no mean: {_why_no_mean(reference)}."
    if best is reference:
        others = [way for way in answer.known if way is not reference]
        if not others:
            return f"{first}."
        second = answer.best(others)
        return f"{first}, the first way; the next best, {second.name}, lies {_difference(second, best)} {above} it."
    return f"{first}; that is {_difference(reference, best)} {below} the first way, {reference.name}."


def warnings(case: Case[Any], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Runs that failed, ways without a mean or with fewer runs than asked, ways that train the same, and lag."""
    yield from dict.fromkeys(f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed")
    yield from _incomplete(outcomes)
    shared: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        shared[outcome.cell.key].append(str(outcome.cell.labels["way"]))
    for names in dict.fromkeys(tuple(names) for names in shared.values() if len(names) > 1):
        yield f"the ways {' and '.join(names)} train the same thing: they share their runs"
    yield from lagging(outcomes)
    if len({way.judged.split for way in answer.ways if way.runs}) > 1:
        name = answer.judged.score.name
        yield f"the {name}s are of different images (data.holdout differs between the ways): they do not compare"


def _incomplete(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for way, group in by_way(outcomes).items():
        scores = [score_of(outcome) for outcome in group]
        if diverged := scores.count(math.inf):
            yield f"{way}: {diverged} of {counted(len(group), 'run')} diverged: no mean"
        if missing := scores.count(None):
            yield f"{way}: {missing} of {counted(len(group), 'run')} {has(missing)} no result"


def _why_no_mean(way: Way) -> str:
    return f"{way.diverged} of {counted(len(way.scores), 'run')} diverged" if way.diverged else "no run has a result"


def _with_spread(way: Way) -> str:
    runs = f"({counted(way.runs, 'run')})"
    mean = way.judged.text(way.point.mean)
    return f"{mean} {runs}" if way.deviation is None else f"{mean} +- {way.deviation:.2f} {runs}"


def _difference(worse: Way, better: Way) -> str:
    """sqrt(s_1^2 / n_1 + s_2^2 / n_2) is the standard error of a difference of means."""
    points = abs(worse.point.mean - better.point.mean)
    apart = f"{points:.2f} points" if better.judged.score.unit == "%" else better.judged.text(points)
    if single := [way.name for way in (better, worse) if way.deviation is None]:
        whose = "one run a way" if len(single) == 2 else f"{single[0]} has one run"
        return f"{apart} ({whose}: no spread)"
    error = math.sqrt(sum((way.deviation or 0.0) ** 2 / way.runs for way in (worse, better)))
    return f"{apart} (standard error {error:.2f})"
