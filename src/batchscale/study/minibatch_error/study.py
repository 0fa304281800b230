"""Error against minibatch, under one rule of the lr or several: how far the minibatch may grow.

Source: Goyal et al. 2017, section 5.2, figures 1 (error against minibatch), 3 and 4 (curves over the reference's).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscale.errors import UsageError
from batchscale.recipe.schema import Recipe
from batchscale.records.findings import Findings
from batchscale.records.provenance import environment
from batchscale.study.evidence.elbow import FEWEST_SEEDS, RESAMPLES, Answer, Elbow, Point, compare_rules
from batchscale.study.evidence.instrument import measured_alike, words_of
from batchscale.study.evidence.quantities import Statistic, error_percent, evaluated_on
from batchscale.study.minibatch_error.figures import elbow_table, error_figure, error_table, image_points, rule_curves
from batchscale.study.rules import Rule, check_fits, check_workers, recipe_at, said, workers_of
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.words import counted, has

_WORDS = {"final": "{} error of the last evaluation", "median5": "median {} error of the last five evaluations"}


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        recipe_name, recipe: the base; its seed is the first.
        minibatches: rising.
        rules: to compare.
        seeds: how many, from the recipe's on.
        reference: the minibatch compared with; None for the recipe's, or the smallest where that is not studied.
        tolerance: points of error.
        statistic: which error of a run.
        warmup_epochs: of rules that warm up; None for the recipe's duration.
        training_images: N.
    """

    recipe_name: str
    recipe: Recipe
    minibatches: tuple[int, ...]
    rules: tuple[Rule, ...]
    seeds: int
    training_images: int
    reference: int | None = None
    tolerance: float = 0.5
    statistic: Statistic = "final"
    warmup_epochs: float | None = None

    def at(self) -> int:
        """The reference minibatch."""
        own = self.recipe.learning_rate.reference_minibatch
        return self.reference or (own if own in self.minibatches else self.minibatches[0])


def check_asked(recipe: Recipe, minibatches: tuple[int, ...], reference: int | None) -> None:
    """Raise where the question is none, whatever the data.

    Args:
        recipe: the base.
        minibatches: to study.
        reference: that was given; None: none was.

    Raises:
        UsageError: one line.
    """
    check_workers(recipe, minibatches)
    if reference is not None and reference not in minibatches:
        raise UsageError(
            f"--reference={reference}: must be one of --minibatches; use one of {','.join(map(str, minibatches))}"
        )


def cells_of(question: Question) -> list[Cell]:
    """Every rule at every minibatch with every seed; runs that are the same have the same recipe.

    Raises:
        UsageError: one line.
    """
    check_asked(question.recipe, question.minibatches, question.reference)
    check_fits(question.minibatches, question.training_images)
    made = []
    for rule in question.rules:
        for minibatch in question.minibatches:
            k, n = workers_of(minibatch, question.recipe.minibatch.per_worker)
            recipe = recipe_at(question.recipe, k, n, rule, question.warmup_epochs, question.training_images)
            for seed in range(recipe.seed, recipe.seed + question.seeds):
                labels = {"minibatch": minibatch, "rule": rule.name, "seed": seed}
                made.append(Cell(labels, recipe.model_copy(update={"seed": seed})))
    return measured_alike(made, question.training_images)


def points_of(outcomes: Sequence[Outcome], statistic: Statistic) -> dict[str, list[Point]]:
    """rule -> its points in rising order."""
    found: dict[str, dict[int, list[float]]] = {}
    for outcome in outcomes:
        labels, error = outcome.cell.labels, error_percent(outcome, statistic)
        here = found.setdefault(labels["rule"], {}).setdefault(labels["minibatch"], [])
        if error is not None:
            here.append(error)
    return {rule: [Point(m, tuple(e)) for m, e in sorted(at.items())] for rule, at in found.items()}


def findings_of(question: Question, outcomes: Sequence[Outcome], command: Sequence[str]) -> Findings:
    """What came out, as a document.

    Args:
        question: as asked.
        outcomes: of ``cells_of(question)``.
        command: words of the command line.
    """
    points, on = points_of(outcomes, question.statistic), evaluated_on(outcomes)
    words = _WORDS[question.statistic].format(on)
    found = compare_rules(points, question.at(), question.tolerance)
    runs = {(o.cell.labels["rule"], o.cell.labels["minibatch"]): o.row()["folder"] for o in reversed(outcomes)}
    return Findings(
        kind="minibatch-error",
        title=f"Error against minibatch: {question.recipe_name}",
        recipe=question.recipe_name,
        asked=_asked(question, words) + words_of([outcome.cell for outcome in outcomes]),
        answer=_sentence(question, found, on),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=(
            error_figure(points, found, question.tolerance, words, on, runs),
            *rule_curves(outcomes, found.best, question.at(), question.recipe.epochs),
        ),
        tables=(elbow_table(found), error_table(points, found)),
        warnings=tuple(_warnings(question, outcomes, points, found)),
        result={"elbow": _as_json(question, found) | {"evaluated_on": on}},
        environment=environment(),
    )


def _asked(question: Question, words: str) -> str:
    seeds = f"{question.seeds} seeds" if question.seeds > 1 else "one seed"
    return (
        f"How far may the minibatch grow before the mean {words} leaves that at "
        f"kn = {question.at():,} by more than {counted(question.tolerance, 'point', 'g')}? "
        f"{question.training_images:,} training images, {counted(question.recipe.epochs, 'epoch', 'g')} at every "
        f"minibatch, {seeds} each, n = {counted(question.recipe.minibatch.per_worker, 'image')} a worker."
    )


def _reach(elbow: Elbow, reference: int) -> str:
    """An elbow in words."""
    if elbow.minibatch is None:
        return "not even at the reference minibatch"
    if elbow.minibatch == reference and not elbow.at_least:
        return "at no larger minibatch tried"
    reach = f"up to {'at least ' if elbow.at_least else ''}kn = {elbow.minibatch:,}"
    return reach + (", the largest tried" if elbow.at_least else "")


def _sureness(elbow: Elbow) -> str:
    if not elbow.shares:
        return "one seed: no uncertainty known"
    if elbow.seeds < FEWEST_SEEDS:
        return "two seeds: too few to tell its uncertainty"
    low, high = (f"{edge:,}" if edge else "none within" for edge in (elbow.low, elbow.high))
    span = f"at {low}" if low == high else f"between {low} and {high}"
    return f"90 % of {RESAMPLES:,} resamples of the seeds {span}"


def _sentence(question: Question, found: Answer, on: str) -> str:
    best, at = found.elbows[found.best], found.reference.minibatch
    mean = "diverged" if math.isinf(found.reference.mean) else f"{found.reference.mean:.2f} %"
    first = (
        f"With {said(found.best)} the mean {on} error stays within {counted(question.tolerance, 'point', 'g')} of kn = "
        f"{at:,} ({mean}) {_reach(best, at)} ({_sureness(best)})"
    )
    others = [f"with {said(rule)}, {_reach(elbow, at)}" for rule, elbow in found.elbows.items() if rule != found.best]
    return f"{'; '.join([first, *others])}."


def _as_json(question: Question, found: Answer) -> dict[str, Any]:
    best = found.elbows[found.best]
    mean = found.reference.mean
    return {
        "minibatch": best.minibatch,
        "at_least": best.at_least,
        "low": best.low,
        "high": best.high,
        "best_rule": found.best,
        "tolerance_points": question.tolerance,
        "statistic": question.statistic,
        "reference_minibatch": found.reference.minibatch,
        "reference_rule": found.reference_rule,
        "reference_error_percent": None if math.isinf(mean) else mean,
        "rules": {rule: asdict(elbow) for rule, elbow in found.elbows.items()},
    }


def _warnings(
    question: Question, outcomes: Sequence[Outcome], points: dict[str, list[Point]], found: Answer
) -> Iterator[str]:
    """What the answer must not be read without."""
    n = question.recipe.minibatch.per_worker
    if small := [m for m in question.minibatches if m < n]:
        yield (
            f"kn = {', '.join(f'{m:,}' for m in small)}: below n = {n}, so one worker of kn images: batch norm and the "
            f"objective are over kn there, not over n"
        )
    for rule, at in points.items():
        for point in at:
            if diverged := sum(map(math.isinf, point.errors)):
                yield (
                    f"{said(rule)} at kn = {point.minibatch:,}: {diverged} of {counted(question.seeds, 'run')} "
                    f"diverged: no mean is drawn, and it counts as above the tolerance"
                )
            if missing := question.seeds - len(point.errors):
                asked = counted(question.seeds, "run")
                yield f"{said(rule)} at kn = {point.minibatch:,}: {missing} of {asked} {has(missing)} no result"
    if question.seeds == 1:
        yield "one seed: the spread is not known, and a difference of a few tenths of a point may be chance"
    if any(elbow.shares and elbow.seeds < FEWEST_SEEDS for elbow in found.elbows.values()):
        yield (
            f"two seeds: {RESAMPLES:,} resamples of two runs say little of how sure an elbow is, so the answer leaves "
            f"them out; take --seeds {FEWEST_SEEDS} or more"
        )
    spread = found.reference.deviation()
    if spread is not None and spread > question.tolerance:
        yield (
            f"at kn = {found.reference.minibatch:,} the seeds' standard deviation is {spread:.2f} points, above "
            f"the tolerance of {question.tolerance:g}: take more seeds, or a wider --tolerance"
        )
    if (image := image_points(outcomes)) and image > question.tolerance / 2:
        yield (
            f"one {evaluated_on(outcomes)} image is {image:.2f} points: a tolerance of {question.tolerance:g} is a "
            f"matter of few images"
        )
