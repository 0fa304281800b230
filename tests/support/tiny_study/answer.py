"""The numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome

from .question import Question


@dataclass(frozen=True)
class Answer:
    means: dict[float, float]
    best: float
    judged: Judged


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    means = {
        rate: statistics.fmean(o.result.judged_by.value for o in outcomes if o.cell.labels["rate"] == rate)
        for rate in case.question.rates
    }
    judged = judged_of(outcomes)
    best = means[judged.best(means, means.__getitem__)]
    good = [rate for rate, mean in means.items() if judged.worse_by(mean, best) <= case.question.margin]
    return Answer(means, min(good), judged)


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    return {"best_rate": answer.best, "means": {str(rate): mean for rate, mean in answer.means.items()}}
