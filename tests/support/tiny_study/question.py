"""What is asked, and the runs that answer it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.study.question import Case, SeededQuestion, flag, read_by
from batchscale.study.runner.cell import Cell


def parse_rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--rates={text}: must be numbers; write for example 0.01,0.1") from None


class Question(SeededQuestion):
    summary: ClassVar = "which learning rate is best"
    about: ClassVar = "Train RECIPE with several learning rates.\n"

    rates: Annotated[tuple[float, ...], read_by(parse_rates)] = flag("learning rates to try", "LIST")
    margin: float = flag("of error, within which a smaller one is as good", "POINTS", default=0.0, ge=0)


def cells(case: Case[Question]) -> list[Cell]:
    return [
        Cell({"rate": rate, "seed": seed}, recipe)
        for rate in case.question.rates
        for seed, recipe in case.question.seeded(
            load_recipe(case.source, [*case.overrides, f"learning_rate.reference={rate!r}"])
        )
    ]
