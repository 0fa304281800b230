"""A study that has not finished -> findings: what was asked, and the runs that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.files import parse_json
from batchscale.records.findings import Findings
from batchscale.report.page.runs import Run
from batchscale.report.page.text import command_line, flat, said


def unfinished_study(folder: Path, runs: Sequence[Run], skipped: Sequence[tuple[str, str]]) -> Findings:
    """The study of a folder without findings.json.

    Args:
        folder: of the study.
        runs: the ended ones.
        skipped: the others.

    Raises:
        FolderError: study.json is damaged.
    """
    path = folder / "study.json"
    try:
        asked: Any = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        asked = None
    if not isinstance(asked, dict):
        raise FolderError(f"{path}: damaged; run the study again on its folder")
    kind, command = said(asked.get("kind")) or "study", asked.get("command")
    recipe = asked.get("recipe")
    name = recipe if isinstance(recipe, str) else "its recipe"
    options = flat(asked["options"]) if isinstance(asked.get("options"), dict) else {}
    words = tuple(said(word) for word in command) if isinstance(command, list) else ()
    again = f": {command_line(words)}" if words else ""
    return Findings(
        kind=kind,
        title=f"{kind} of {name}: not finished",
        recipe=name,
        asked="; ".join(f"{key}: {value}" for key, value in options.items()) or "Its options are not recorded.",
        answer=f"No answer yet: {_have(len(runs), 'run', 's')} ended, {_have(len(skipped))} not.",
        command=words,
        rows=tuple(_row(run) for run in runs),
        warnings=(f"The study has not finished; the same command goes on with it{again}",),
    )


def _have(count: int, noun: str = "", plural: str = "") -> str:
    words = [str(count), f"{noun}{plural if count != 1 else ''}", "has" if count == 1 else "have"]
    return " ".join(word for word in words if word)


def _row(run: Run) -> dict[str, Any]:
    result = run.result
    assert result is not None  # read_runs gives ended runs only
    return {
        "minibatch": result.workers * result.per_worker,
        "seed": run.recipe.get("seed"),
        "status": result.status,
        "test_error_percent": result.test_error_percent,
        "train_loss": result.train_loss,
        "steps": result.steps,
        "folder": run.name,
    }
