"""`--measure`: measures of every run's end, beside its score.

A run takes them after its last step (``execution.measures``), which changes nothing of it; of one that had ended before
they were asked for, they are taken of its last checkpoint. Either way they are lines of the run's measures.jsonl.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from batchscale.errors import UsageError
from batchscale.measure.measures import MEASURES
from batchscale.recipe import Recipe
from batchscale.recipe.measuring import MeasureEntry
from batchscale.records.run import RunRecords
from batchscale.study.question import Case, SeededQuestion, flag, read_by
from batchscale.words import did_you_mean

if TYPE_CHECKING:
    from batchscale.study.runner.cell import Outcome


def parse_measures(text: str) -> tuple[str, ...]:
    """Names of measures from words such as ``sharpness,curvature``, each once.

    Raises:
        UsageError: one is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in MEASURES:
            raise UsageError(
                f"--measure={text}: {name!r} is no measure; {did_you_mean(name, MEASURES)}use "
                f"{' or '.join(MEASURES)}, or several of them"
            )
    return names


class MeasuredQuestion(SeededQuestion):
    """A question whose runs may be measured at their ends."""

    measure: Annotated[tuple[str, ...], read_by(parse_measures)] = flag(
        "measures of every run's end, beside its score, such as sharpness,curvature (options: execution.measures)",
        "LIST",
        default=(),
    )

    def after_runs(self, case: Case[Any], outcomes: Sequence[Outcome]) -> None:
        """Measure the last checkpoints of runs that had ended before they were asked to be measured."""
        for outcome, entry in _unmeasured(case, outcomes):
            _measure_ended(outcome.folder, entry, case.data_folder)


def measures_of(case: Case[Any]) -> tuple[str, ...]:
    """The measures that a study asks for."""
    question = case.question
    return question.measure if isinstance(question, MeasuredQuestion) else ()


def measured_at_end(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe, its runs measured by these, too; those that it asks for itself keep their options."""
    entries = recipe.execution.measures
    entries = (*entries, *(MeasureEntry(name=name) for name in names if name not in {one.name for one in entries}))
    return recipe.model_copy(update={"execution": recipe.execution.model_copy(update={"measures": entries})})


def line_at_end(outcome: Outcome, name: str) -> dict[str, Any] | None:
    """What a measure said of a run's end; None where it has not been taken."""
    if outcome.status != "done" or outcome.result is None:
        return None
    lines = RunRecords(outcome.folder).measures()
    return next((one for one in lines if (one.get("step"), one.get("measure")) == (outcome.result.steps, name)), None)


def _unmeasured(case: Case[Any], outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, MeasureEntry]]:
    names, folders = measures_of(case), set[Path]()
    for outcome in outcomes:
        if outcome.status == "done" and outcome.folder not in folders:
            folders.add(outcome.folder)
            entries = [one for one in outcome.cell.recipe.execution.measures if one.name in names]
            yield from ((outcome, one) for one in entries if line_at_end(outcome, one.name) is None)


def _measure_ended(run: Path, entry: MeasureEntry, data_folder: Path | None) -> None:
    from batchscale.run.measuring import measure_ended

    line = measure_ended(run, entry, data_folder)
    told = line.get("answer") or f"refused: {line['refused']}"
    print(f"{run.name}, which had ended: {entry.name}: {told}", file=sys.stderr, flush=True)
