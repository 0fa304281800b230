"""A folder -> its report.html: a study, a run, or results of benchmarks, told by what the folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchscale.bench.findings import saved_findings
from batchscale.errors import FolderError
from batchscale.records.files import write_whole
from batchscale.records.findings import Findings
from batchscale.report.page.html import render
from batchscale.report.page.runs import Run, read_run, read_runs
from batchscale.report.run_findings import run_findings
from batchscale.report.study_findings import study_findings

NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        path: of the page.
        kind: of the findings.
        runs: shown.
        skipped: (folder or file, reason).
    """

    path: Path
    kind: str
    runs: int
    skipped: list[tuple[str, str]]


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a study, a run, or results of benchmarks.

    Raises:
        FolderError: the folder holds none of these, or cannot be written.
    """
    return write(folder).path


def write(folder: Path) -> Written:
    """As write_report, and tell what stands in it."""
    if not folder.is_dir():
        raise FolderError(f"{folder}: is no folder; give the folder of a study, a run or results of bench")
    findings, runs, skipped = _gathered(folder)
    path = folder / NAME
    page = render(findings, runs, skipped).encode("utf-8")
    write_whole(path, page, f"or copy {folder} to where you may write, and report on the copy")
    return Written(path, findings.kind, len(runs), skipped)


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
