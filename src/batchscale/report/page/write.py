"""A folder -> its report.html: a study, a run, or results of benchmarks, told by what the folder holds.

Several folders -> the page of the critical minibatch, measured in several ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchscale.bench.findings import saved_findings
from batchscale.errors import FolderError
from batchscale.records.files import cannot_write, write_whole
from batchscale.records.findings import Findings
from batchscale.report.critical.findings import critical_findings
from batchscale.report.critical.recipes import check_one_recipe
from batchscale.report.critical.sources import read_source
from batchscale.report.page.html import render
from batchscale.report.page.runs import Run, read_run, read_runs
from batchscale.report.run_findings import run_findings
from batchscale.report.study_findings import study_findings

NAME, TOGETHER = "report.html", "critical-minibatch.html"


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        path: of the page.
        kind: of the findings.
        runs: shown.
        skipped: (folder or file, reason).
        answer: of several folders' page, one sentence and more.
        result: of several folders' page, the answer as numbers.
    """

    path: Path
    kind: str
    runs: int
    skipped: list[tuple[str, str]]
    answer: str = ""
    result: dict[str, Any] = field(default_factory=dict)


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a study, a run, or results of benchmarks.

    Raises:
        FolderError: the folder holds none of these, or cannot be written.
    """
    return write(folder).path


def write(folder: Path) -> Written:
    """As write_report, and tell what stands in it."""
    _check_is_folder(folder)
    findings, runs, skipped = _gathered(folder)
    path = folder / NAME
    page = render(findings, runs, skipped).encode("utf-8")
    write_whole(path, page, f"or copy {folder} to where you may write, and report on the copy")
    return Written(path, findings.kind, len(runs), skipped)


def _check_is_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderError(f"{folder}: is no folder; give the folder of a study, a run or results of bench")


def write_together(folders: Sequence[Path], command: Sequence[str], out: Path | None = None) -> Written:
    """Write the page of the critical minibatch, of several folders of one recipe.

    Args:
        folders: of studies steps-to-target and branch, measures of the noise scale, and runs that measured it.
        command: that asks for it.
        out: the folder that the page goes to; None: the first of the folders, whose own page stays.

    Raises:
        FolderError: one of them says nothing of the critical minibatch, they are of different recipes, or of one way.
    """
    for folder in folders:
        _check_is_folder(folder)
    sources = [read_source(folder) for folder in dict.fromkeys(folders)]
    check_one_recipe(sources)
    if len({source.kind for source in sources}) < 2:
        raise FolderError(
            f"{', '.join(map(str, folders))}: one way to the critical minibatch alone ({sources[0].kind}); give "
            f"folders of two ways and more, or one folder"
        )
    findings = critical_findings(sources, command)
    path = (out or folders[0]) / TOGETHER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    write_whole(path, render(findings).encode("utf-8"))
    return Written(path, findings.kind, 0, [], findings.answer, findings.result)


def _gathered(folder: Path) -> tuple[Findings, list[Run], list[tuple[str, str]]]:
    if _is_study(folder):
        runs, skipped = read_runs(folder)
        return study_findings(folder, runs, skipped), runs, skipped
    if (folder / "recipe.yaml").exists():
        try:
            run = read_run(folder, ".")
        except FolderError as error:
            forbidden = isinstance(error.__cause__, PermissionError)
            way_out = "change its permissions" if forbidden else "train the run again"
            raise FolderError(f"{folder}: {error}; {way_out}, or give another folder") from None
        return run_findings(folder, run), [run], []
    try:
        findings, skipped = saved_findings(folder)
    except FolderError:
        above = folder.resolve().parent
        if not _is_study(above):
            raise
        near = folder.parent if folder.parent.resolve() == above else above
        raise FolderError(f"{folder}: holds no study, but lies in one; give its folder: {near}") from None
    return findings, [], skipped


def _is_study(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("findings.json", "study.json"))
