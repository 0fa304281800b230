"""``batchscale.measure.curvature``: the curvature of one's own module, data and task."""

from __future__ import annotations

from typing import Any

from batchscale.measure.curvature.answer import Answer, answer_about, of_part
from batchscale.measure.curvature.question import Question
from batchscale.measure.own import asked_of_own


def of_own(*things: Any, **asked: Any) -> Answer:
    """Top eigenvalues, trace and spectral density of the Hessian of a module's mean loss over data.

    Args:
        things, asked: model, data, task, and the fields of the question; see ``measure.own.asked_of_own``.

    Returns:
        The answer, a row a part: ``rows[0].eigenvalues.values``, ``rows[0].trace``, ``rows[0].density``.

    Raises:
        UsageError: one line.
    """
    question, own = asked_of_own(Question, *things, **asked)
    rows = []
    for part in question.parts or (None,):
        objective = own.objective(question, None if part is None else [part])
        rows.append(of_part(question, objective, part=part))
    count = len(objective.examples)
    return answer_about(question, rows, count, count, objective.task, [own.model])
