"""Scaling in words: the rules of thumb, and what makes them doubtful."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.study.evidence.instrument import words_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.answer import Answer, Passing, Row, oversubscribed
from batchscale.study.scaling.question import STRONG, WEAK, Question, threads_of
from batchscale.system.cores import available_cores
from batchscale.words import counted, has

_LOOSE = 0.1  # interquartile range over median from which a speed is not to be trusted


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"{' and '.join(case.question.modes).capitalize()} scaling: {case.recipe_name}"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    kn = case.recipe.minibatch.workers * case.recipe.minibatch.per_worker
    threads = f"{counted(threads_of(case), 'thread')} a process"
    place = f"this machine ({counted(available_cores(), 'core')}, {threads})"
    if case.task_cores is not None:
        place = f"this cluster ({counted(case.task_cores, 'core')} and {threads})"
    return (
        f"How far do more processes pay on {place}? "
        f"kn = {kn:,} in strong scaling, W times that in weak; {case.training_images:,} training "
        f"images, {counted(case.recipe.epochs, 'epoch', 'g')}, {case.question.seeds_words}, one run at a time."
        f"{words_of([outcome.cell for outcome in outcomes])}"
    )


def sentence(case: Case[Question], answer: Answer) -> str:
    """The rules of thumb."""
    return " ".join([*_not_measurable(answer), *_strong(case, answer), *_weak(case, answer)])


def _not_measurable(answer: Answer) -> Iterator[str]:
    if loose := _loose(answer.rows):
        low, high = min(row.spread for row in loose), max(row.spread for row in loose)
        spread = f"{low:.0%}" if len(loose) == 1 else f"{low:.0%} to {high:.0%}"
        yield (
            f"Not measurable now (spread {spread.replace('%', ' %')}): speeds and efficiencies are hints at best, to "
            f"be timed again on a quiet machine."
        )


def _strong(case: Case[Question], answer: Answer) -> Iterator[str]:
    if STRONG not in answer.limits:
        return
    limit, bound = answer.limits[STRONG], f"{case.question.efficiency_bound:g}"
    if limit.processes is None:
        last = f"W = {limit.within}" if limit.within else "any W measured"
        yield f"Strong scaling's efficiency stays at {bound} or more up to {last}{_largest(case, limit)}."
    else:
        yield f"Strong scaling's efficiency falls below {bound} {_between(limit, answer.of_mode(STRONG))}."


def _weak(case: Case[Question], answer: Answer) -> Iterator[str]:
    if WEAK not in answer.limits:
        return
    limit, rows, judged = answer.limits[WEAK], answer.of_mode(WEAK), answer.judged
    first, bound = rows[0], judged.tolerance_words(case.question.error_bound)
    if math.isinf(first.scores.mean):
        name = judged.score.name
        yield f"Weak scaling's {name} has nothing to be compared with: W = {first.processes} diverged or has none."
        return
    reference = f"W = {first.processes}'s {judged.text(first.scores.mean)}"
    if limit.processes is None:
        kn = next((row.minibatch for row in rows if row.processes == limit.within), 0)
        yield (
            f"Weak scaling's mean {judged.words} stays within {bound} of {reference} up to W = {limit.within} "
            f"(kn = {kn:,}){_largest(case, limit)}."
        )
    else:
        rises = "rises to more than {} above" if judged.falls else "falls to more than {} below"
        yield f"Weak scaling's mean {judged.words} {rises.format(bound)} {reference} {_between(limit, rows)}."


def _largest(case: Case[Question], limit: Passing) -> str:
    return ", the largest tried" if limit.within == case.question.processes[-1] else ""


def _loose(rows: Sequence[Row]) -> list[Row]:
    """Those whose speed is not to be trusted."""
    return [row for row in rows if row.spread > _LOOSE]


def _between(limit: Passing, rows: Sequence[Row]) -> str:
    measured = [row.processes for row in rows]
    if limit.within is None:
        return f"at the smallest measured already, W = {measured[0]}"
    after = next(processes for processes in measured if processes > limit.within)
    about = f"{limit.processes:.1f}"
    place = "" if about == f"{limit.within:.1f}" else f" (about {about})"
    return f"between {limit.within} and {after} processes{place}"


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What the answer must not be read without."""
    yield from _speed_doubts(case, answer.rows)
    seeds, name = case.question.seeds, answer.judged.score.name
    for row in answer.rows:
        if diverged := sum(map(math.isinf, row.scores.errors)):
            yield f"{row.where}: {diverged} of {counted(seeds, 'run')} diverged: no mean {name} is given"
        if missing := seeds - len(row.scores.errors):
            yield f"{row.where}: {missing} of {counted(seeds, 'run')} {has(missing)} no result"
        if row.images_per_second is None:
            yield f"{row.where}: no interval was long enough to time; train longer"
    if seeds == 1:
        yield f"one seed: the spread of speed and {name} is not known"
    if (fewest := case.question.processes[0]) > 1:
        yield f"the smallest W is {fewest}: speed-up and efficiency are against it, not against W = 1"


def _speed_doubts(case: Case[Question], rows: Sequence[Row]) -> Iterator[str]:
    devices = sorted({device for row in rows for device in row.devices})
    over = sorted({row.processes for row in rows if oversubscribed(case, row)})
    if over and not any("CUDA" in device for device in devices):
        cores = f"this machine's {counted(available_cores(), 'core')}"
        if case.task_cores is not None:
            cores = f"a task's {counted(case.task_cores, 'core')}"
        yield (
            f"W = {', '.join(map(str, over))}: more threads than {cores}, so the processes shared cores: speed there "
            f"says nothing about a larger machine"
        )
    if loose := _loose(rows):
        each = ", ".join(f"{row.mode} W = {row.processes} {row.spread:.0%}" for row in loose)
        yield (
            f"the intervals of a run differ in speed by more than {_LOOSE:.0%} (interquartile range over median: "
            f"{each}): other work on the machine, or runs too short to time; not measurable now"
        )
    if len(devices) > 1:
        yield f"the runs were computed on different devices ({'; '.join(devices)}): their speeds do not compare"
