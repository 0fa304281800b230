"""Error against minibatch in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.records.files import is_number, read_lines
from batchscale.study.evidence.elbow import FEWEST_SEEDS, RESAMPLES, Elbow
from batchscale.study.evidence.instrument import words_of
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.minibatch_error.answer import Answer
from batchscale.study.minibatch_error.question import Question
from batchscale.study.question import Case
from batchscale.study.rules import rule_words
from batchscale.study.runner.cell import Outcome
from batchscale.words import counted, has

_STATISTICS = {"final": "{} of the last evaluation", "median5": "median {} of the last five evaluations"}


def title(case: Case[Question]) -> str:
    """Of the page."""
    what = "Error" if case.recipe.task == "classification" else "Score"
    return f"{what} against minibatch: {case.recipe_name}"


def statistic_words(case: Case[Question], judged: Judged) -> str:
    """Which score of a run is taken."""
    return _STATISTICS[case.question.statistic].format(judged.words)


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    question, judged = case.question, judged_of(outcomes)
    return (
        f"How far may the minibatch grow before the mean {statistic_words(case, judged)} leaves that at "
        f"kn = {question.compared_with(case.recipe):,} by more than {judged.tolerance_words(question.tolerance)}? "
        f"{case.training_images:,} training images, {counted(case.recipe.epochs, 'epoch', 'g')} at every "
        f"minibatch{_regimes(case)}, {question.seeds_words} each, "
        f"n = {counted(case.recipe.minibatch.per_worker, 'image')} a worker."
        f"{words_of([outcome.cell for outcome in outcomes])}"
    )


def _regimes(case: Case[Question]) -> str:
    """What rules with regime adaptation have in the place of the same epochs."""
    names = [rule.name for rule in case.question.rules or () if rule.regime]
    if not names:
        return ""
    return f" (by {', '.join(names)} the steps of kn = {case.question.compared_with(case.recipe):,} in their place)"


def sentence(case: Case[Question], answer: Answer) -> str:
    """How far the best rule reaches, and the others."""
    reference, judged, best_rule = answer.reference, answer.judged, answer.elbows.best
    mean = "diverged" if math.isinf(reference.mean) else judged.text(reference.mean)
    first = (
        f"With {rule_words(best_rule)} the mean {judged.words} stays within "
        f"{judged.tolerance_words(case.question.tolerance)} of kn = {reference.minibatch:,} ({mean}) "
        f"{_reach(answer.best, reference.minibatch)} ({_sureness(answer.best)})"
    )
    others = [
        f"with {rule_words(rule)}, {_reach(elbow, reference.minibatch)}"
        for rule, elbow in answer.elbows.elbows.items()
        if rule != best_rule
    ]
    return f"{'; '.join([first, *others])}.{''.join(_updates(answer))}"


def _updates(answer: Answer) -> Iterator[str]:
    """Of rules with and without regime adaptation: whether updates were too few, or the minibatch too large."""
    elbows = answer.elbows.elbows
    for rule, longer in elbows.items():
        shorter = elbows.get(rule.removesuffix("+regime"))
        if shorter is None or shorter is longer or shorter.minibatch is None or longer.minibatch is None:
            continue
        if longer.minibatch > shorter.minibatch:
            beyond = "" if longer.at_least else "; beyond it the minibatch itself is too large"
            yield (
                f" With the same steps in place of the same epochs {rule} reaches kn = {longer.minibatch:,}, and not "
                f"{shorter.minibatch:,}: up to there updates were too few{beyond}."
            )
        elif not (longer.at_least or shorter.at_least):
            yield (
                f" With the same steps in place of the same epochs {rule} reaches no further than kn = "
                f"{longer.minibatch:,}: beyond it the minibatch is too large, whatever the number of updates."
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


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What the answer must not be read without."""
    n = case.recipe.minibatch.per_worker
    if small := [minibatch for minibatch in case.question.minibatches if minibatch < n]:
        yield (
            f"kn = {', '.join(f'{minibatch:,}' for minibatch in small)}: below n = {n}, so one worker of kn images: "
            f"batch norm and the objective are over kn there, not over n"
        )
    yield from _incomplete(answer, case.question.seeds)
    if case.question.seeds == 1:
        yield "one seed: the spread is not known, and a difference of a few tenths of a point may be chance"
    if any(elbow.shares and elbow.seeds < FEWEST_SEEDS for elbow in answer.elbows.elbows.values()):
        yield (
            f"two seeds: {RESAMPLES:,} resamples of two runs say little of how sure an elbow is, so the answer leaves "
            f"them out; take --seeds {FEWEST_SEEDS} or more"
        )
    yield from _unsure_tolerance(answer, outcomes)


def _incomplete(answer: Answer, seeds: int) -> Iterator[str]:
    for rule, points in answer.points.items():
        for point in points:
            where = f"{rule_words(rule)} at kn = {point.minibatch:,}"
            if diverged := sum(map(math.isinf, point.errors)):
                yield (
                    f"{where}: {diverged} of {counted(seeds, 'run')} diverged: no mean is drawn, and it counts as "
                    f"{'above' if answer.judged.falls else 'below'} the tolerance"
                )
            if missing := seeds - len(point.errors):
                yield f"{where}: {missing} of {counted(seeds, 'run')} {has(missing)} no result"


def _unsure_tolerance(answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    spread, tolerance = answer.reference.deviation(), answer.tolerance
    if spread is not None and spread > tolerance:
        points = f"{spread:.2f} points" if answer.judged.score.unit == "%" else answer.judged.text(spread)
        yield (
            f"at kn = {answer.reference.minibatch:,} the seeds' standard deviation is {points}, above "
            f"the tolerance of {tolerance:.4g}: take more seeds, or a wider --tolerance"
        )
    if answer.judged.key == "error_percent" and (image := _image_points(outcomes)) and image > tolerance / 2:
        yield (
            f"one {answer.judged.split} image is {image:.2f} points: a tolerance of {tolerance:g} is a "
            f"matter of few images"
        )


def _image_points(outcomes: Sequence[Outcome]) -> float | None:
    """What one image of the evaluated set is worth in points, from the first run that tells."""
    for outcome in outcomes:
        for line in read_lines(outcome.folder / "evaluations.jsonl"):
            if is_number(images := line.get("images")) and images > 0:
                return 100 / images
    return None
