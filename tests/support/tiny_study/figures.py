"""Its figure and its table."""

from __future__ import annotations

from collections.abc import Sequence

from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome

from .answer import Answer
from .question import Question


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    line = Series(name="mean", x=tuple(answer.means), y=tuple(answer.means.values()))
    x, y = Axis(label="lr", scale="log10"), Axis(label=answer.judged.label)
    return (Figure(id="rates", title="Error against lr", caption="Means over seeds.", x=x, y=y, series=(line,)),)


def tables(case: Case[Question], answer: Answer) -> tuple[Table, ...]:
    return (Table(title="Every lr", columns=("lr", "mean"), rows=tuple(answer.means.items())),)
