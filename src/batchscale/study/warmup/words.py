"""Warmup in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.instrument import words_of
from batchscale.study.evidence.judged import Judged
from batchscale.study.evidence.welch import margin
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.warmup.answer import Answer, WarmupRuns
from batchscale.study.warmup.question import REFERENCE, Question
from batchscale.words import counted, has


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"Warmup: {case.recipe_name}"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    question, entry = case.question, case.recipe.learning_rate
    return (
        f"Which warmup brings kn = {question.minibatch:,} nearest to kn = {entry.reference_minibatch:,}? "
        f"{case.training_images:,} training images, {counted(case.recipe.epochs, 'epoch', 'g')}, "
        f"{question.seeds_words} each, {entry.scaling} scaling, {_duration(case)}."
        f"{words_of([outcome.cell for outcome in outcomes])}"
    )


def _duration(case: Case[Question]) -> str:
    entry, epochs = case.recipe.learning_rate.warmup, case.question.warmup_epochs
    if epochs is not None or entry.epochs is not None:
        return f"warmup of {counted(epochs or entry.epochs or 0, 'epoch', 'g')}"
    return f"warmup of {counted(entry.steps, 'step')}" if entry.steps is not None else "no warmup"


def sentence(case: Case[Question], answer: Answer) -> str:
    """The best warmup, its distance to the reference, and what the seeds do not tell apart."""
    reference, judged, known = answer.reference, answer.judged, answer.known
    if not known or math.isinf(reference.scores.mean):
        return f"No comparison: {'the reference' if known else 'every large minibatch'} diverged or has no result."
    best = judged.best(known, lambda way: way.scores.mean)
    each = "; ".join(f"{_called(way.name)} {_value(way.scores, judged)}" for way in answer.ways[1:])
    difference = best.scores.mean - reference.scores.mean
    points = (
        f"{difference:+.2f} points" if judged.score.unit == "%" else f"{difference:+.2f} {judged.score.unit}".rstrip()
    )
    comparison = (
        f"At kn = {case.question.minibatch:,} the {judged.words} is {'lowest' if judged.falls else 'highest'} with "
        f"{_called(best.name)}, {points} from kn = {reference.scores.minibatch:,} "
        f"({_value(reference.scores, judged)}): {each}"
    )
    if case.question.seeds == 1:
        return f"{comparison}; one seed, so no difference is sure."
    return f"{comparison}{_not_told_apart(best, [way for way in known if way is not best])}."


def _called(kind: str) -> str:
    """A kind of warmup in a sentence, where "none" would read as a word."""
    return {"none": "no warmup", REFERENCE: "the reference"}.get(kind, f"{kind} warmup")


def _not_told_apart(best: WarmupRuns, others: Sequence[WarmupRuns]) -> str:
    margins = {_called(way.name): margin(way.scores, best.scores) for way in others}
    apart = {_called(way.name): abs(way.scores.mean - best.scores.mean) for way in others}
    close = [name for name, points in margins.items() if points is not None and apart[name] <= points]
    unknown = [name for name, points in margins.items() if points is None]
    clauses = f"; the seeds do not tell {', '.join(close)} from it (Welch's t, 95 %)" if close else ""
    if unknown:
        clauses += (
            f"; whether {', '.join(unknown)} differ{'s' * (len(unknown) == 1)} cannot be told: no spread is known"
        )
    return clauses


def _value(point: Point, judged: Judged) -> str:
    if math.isinf(point.mean):
        return "diverged" if point.errors else "no result"
    deviation = point.deviation()
    return judged.text(point.mean) if deviation is None else f"{point.mean:.2f} ± {judged.text(deviation)}"


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What the answer must not be read without."""
    seeds = case.question.seeds
    for way in answer.ways:
        if way.diverged:
            yield f"{_called(way.name)}: {way.diverged} of {counted(seeds, 'run')} diverged: no mean is given"
        if missing := seeds - len(way.scores.errors):
            yield f"{_called(way.name)}: {missing} of {counted(seeds, 'run')} {has(missing)} no result"
    if seeds == 1:
        yield "one seed: the spread is not known"
    reference, n = answer.reference.scores.minibatch, case.recipe.minibatch.per_worker
    if reference < n:
        yield (
            f"the reference, kn = {reference:,}, is below n = {n}: "
            f"one worker of kn images, so batch norm is over kn there"
        )
