"""Scaling over workers in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.study.evidence.instrument import words_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.answer import Passing
from batchscale.study.scaling.question import STRONG, WEAK, Question
from batchscale.study.workers.answer import Answer, Fall, Place
from batchscale.study.workers.question import workers_of
from batchscale.words import counted, has


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"{' and '.join(case.question.modes).capitalize()} scaling over workers: {case.recipe_name}"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    minibatch, counts = case.recipe.minibatch, ", ".join(map(str, workers_of(case)))
    return (
        f"What do k = {counts} workers make of loss and score? Weak: {minibatch.per_worker} examples a worker, the lr "
        f"by the rule {case.recipe.learning_rate.scaling}; strong: kn = {minibatch.workers * minibatch.per_worker}. "
        f"{case.training_images:,} training examples, {counted(case.recipe.epochs, 'epoch', 'g')} at every k, "
        f"{case.question.seeds_words}. k says how a run is defined, not where it ran: one process here."
        f"{words_of([outcome.cell for outcome in outcomes])}"
    )


def sentence(case: Case[Question], answer: Answer) -> str:
    """How far every way carries, what the shard hides, and where the score falls against N."""
    return " ".join([*_ways(case, answer), *_strong(answer), *_shards(answer), *_falls(case, answer)])


def _ways(case: Case[Question], answer: Answer) -> Iterator[str]:
    judged, bound = answer.judged, answer.judged.tolerance_words(case.question.error_bound)
    for way, limit in answer.limits.items():
        first = answer.of(WEAK, way)[0]
        if math.isinf(first.scores.mean):
            yield f"Weak, {way}: k = {first.workers} diverged or has no result."
            continue
        reference = f"k = {first.workers}'s {judged.text(first.scores.mean)}"
        if limit.processes is None:
            yield f"Weak, {way}: mean {judged.words} stays within {bound} of {reference} up to kn = {limit.within:,}."
        else:
            yield f"Weak, {way}: mean {judged.words} leaves {reference} by more than {bound} at kn = {_about(limit)}."


def _about(limit: Passing) -> str:
    return f"{limit.processes:,.0f}" + (f" (last within: {limit.within:,})" if limit.within else "")


def _strong(answer: Answer) -> Iterator[str]:
    places = [place for place in answer.of(STRONG) if not math.isinf(place.scores.mean)]
    if len(places) > 1:
        means = [place.scores.mean for place in places]
        yield (
            f"Strong: mean {answer.judged.words} from {answer.judged.text(min(means))} to "
            f"{answer.judged.text(max(means))} over k = {places[0].workers} to {places[-1].workers}."
        )


def differences(places: Sequence[Place]) -> list[tuple[int, float]]:
    """(k, score of the first 1/k of the evaluation set minus that of all of it), where both are known."""
    pairs = ((place.workers, place.shards.mean - place.whole.mean) for place in places if place.shards.errors)
    return [(workers, difference) for workers, difference in pairs if math.isfinite(difference)]


def _shards(answer: Answer) -> Iterator[str]:
    if not (pairs := differences(answer.of(WEAK))):
        return
    workers, difference = max(pairs, key=lambda pair: abs(pair[1]))
    name, unit = answer.judged.score.name, " points" if answer.judged.score.unit == "%" else ""
    yield (
        f"The {name} of the first 1/k of the evaluation set misleads by up to {difference:+.2f}{unit} (k = {workers})."
    )


def _falls(case: Case[Question], answer: Answer) -> Iterator[str]:
    if len(answer.falls) < 2:
        return
    each = "; ".join(_fall_text(fall) for fall in answer.falls)
    shares = [fall.examples / fall.minibatch for fall in answer.falls if fall.minibatch]
    rule = "not resolved for every N"
    if len(shares) == len(answer.falls):
        low, high = min(shares), max(shares)
        rule = f"the score falls where an epoch has fewer than about {low:.0f} to {high:.0f} steps"
    yield f"By the way {case.question.ways[0]}, leaving the 95 % interval of the smallest k: {each}: {rule}."


def _fall_text(fall: Fall) -> str:
    if fall.low is None:
        return f"N = {fall.examples:,}: no interval (one seed, or a run diverged)"
    if fall.minibatch is None:
        return (
            f"N = {fall.examples:,}: not up to kn = {fall.within:,}" if fall.within else f"N = {fall.examples:,}: none"
        )
    return f"N = {fall.examples:,}: kn = {fall.minibatch:,.0f}"


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What the answer must not be read without."""
    seeds, name = case.question.seeds, answer.judged.score.name
    for place in answer.places:
        where = f"{place.mode}, {place.way}, k = {place.workers}"
        if place.fraction < 1:
            where += f", {place.fraction:g} of the data"
        if diverged := sum(map(math.isinf, place.scores.errors)):
            yield f"{where}: {diverged} of {counted(seeds, 'run')} diverged: no mean {name} is given"
        if missing := seeds - len(place.scores.errors):
            yield f"{where}: {missing} of {counted(seeds, 'run')} {has(missing)} no result"
    if seeds == 1:
        yield f"one seed: the spread of {name} is not known, so no interval of the smallest k"
    yield from dict.fromkeys(f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed")
