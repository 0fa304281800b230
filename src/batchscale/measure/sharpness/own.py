"""``batchscale.measure.sharpness``: the sharpness of one's own module, data and task."""

from __future__ import annotations

from typing import Any

from batchscale.measure.own import asked_of_own
from batchscale.measure.sharpness.answer import searched_of
from batchscale.measure.sharpness.question import Question
from batchscale.measure.sharpness.sharpness import Sharpness, sharpness


def of_own(*things: Any, **asked: Any) -> list[Sharpness]:
    """Keskar's and the adaptive sharpness of a module's mean loss over data.

    Args:
        things, asked: model, data, task, and the fields of the question; see ``measure.own.asked_of_own``.

    Returns:
        Part by part, and of each first those of the full space; in each space form by form, and there the epsilons in
        their order.

    Raises:
        UsageError: one line.
    """
    question, own = asked_of_own(Question, *things, **asked)
    searched = searched_of(question)
    objectives = [own.objective(question, None if part is None else [part]) for part in question.parts or (None,)]
    return [number for objective in objectives for number in sharpness(objective, searched)]
