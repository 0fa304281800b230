"""``batchscale.measure.landscape``: the loss around one's own module, or from one to another, over data."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.averages import RecomputedAverages
from batchscale.measure.function import has_batch_norm
from batchscale.measure.landscape.answer import Answer, axes_of, landscapes, size_of, values_of
from batchscale.measure.landscape.filled import filled
from batchscale.measure.landscape.kept import KeptPoints
from batchscale.measure.landscape.places import Around, Between
from batchscale.measure.landscape.points import Judge, Places
from batchscale.measure.landscape.question import Question
from batchscale.measure.objective import Objective
from batchscale.measure.own import OwnThings, asked_of_own, own_normalizer, own_objective


def of_own(*things: Any, other: nn.Module | None = None, test: Any = None, **asked: Any) -> Answer:
    """Loss and score over a plane or a line around a module, or over the line to another one.

    Args:
        things, asked: model, data, task, and the fields of the question; see ``measure.own.asked_of_own``.
        other: of the same net; the line leads to its weights.
        test: data that are judged beside the stated set, of the same forms.

    Returns:
        The answer: ``axes``, ``landscapes[0].loss``, ``.score``, ``.test_loss``, ``.test_score``.

    Raises:
        UsageError: one line.
    """
    question, own = asked_of_own(Question, *things, **asked)
    form = "around" if other is None else "line"
    if question.form not in (None, form):
        raise UsageError(f"form={question.form}: the line is what leads to another module; leave it out, or give other")
    parts = _parts(own, question, test)
    train, tested = len(parts[0].examples), sum(len(part.examples) for part in parts[1:])
    held = question.model_copy(update={"examples": train, "test_examples": tested})
    full = filled(held, form, train, tested)
    place: Places = Around.of(own.model, full.seed, full.dimensions or 2)
    if other is not None:
        place = Between.of(own.model, other, ("model", "other"))
    world, kept = own.world or World(device=parts[0].device), KeptPoints(None, "", values_of(full))
    ends = [("model", 0)] if other is None else [("model", 0), ("other", 0)]
    judge = partial(Judge, parts, place, _averages(own, full, parts[0]))
    return Answer(
        full,
        form,
        axes_of(full),
        landscapes(full, [place], ends, [judge], kept, world),
        train,
        tested,
        parts[0].task.examples,
        parts[0].task.score,
        size_of(own.model),
        has_batch_norm(own.model),
        False,
    )


def _parts(own: OwnThings, question: Question, test: Any) -> list[Objective]:
    """The loss over the stated set, and over the test data; a point is one process's alone."""
    alone = World(device=own_normalizer(own.model).device)
    settings: dict[str, Any] = {"chunk": question.chunk, "world": alone}
    stated = own_objective(own.model, own.data, own.task, classes=own.classes, **settings)
    return [stated] if test is None else [stated, own_objective(own.model, test, stated.task, **settings)]


def _averages(own: OwnThings, question: Question, stated: Objective) -> RecomputedAverages | None:
    if question.batch_norm == "averages":
        return None
    normalizer, per_worker = own_normalizer(own.model), own.per_worker or stated.chunk
    return RecomputedAverages(own.model, stated.weights, stated.examples, normalizer, stated.world, per_worker)
