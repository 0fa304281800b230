"""The noise scale as measured: at a checkpoint by ``measure``, in a run by its rider, both where a run has both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.files import is_number
from batchscale.records.findings import Findings, read_findings
from batchscale.records.run import RunRecords
from batchscale.report.critical.documents import ends, minibatch_of, number, parts_of, reference
from batchscale.report.critical.readings import CONFIDENCE, CriticalReading, CriticalSource
from batchscale.report.text import flat

KIND = "noise-scale"
"""Of findings."""


def measure_source(folder: Path, findings: Findings) -> CriticalSource:
    """A folder of ``measure noise-scale``: within a run's, or anywhere."""
    run = next((above for above in (folder, *folder.resolve().parents) if (above / "recipe.yaml").exists()), None)
    entries = flat(RunRecords(run).recipe()) if run else reference(folder)
    return CriticalSource(
        folder,
        "noise scale",
        findings.recipe,
        entries,
        minibatch_of(entries),
        _of_measure(findings, run, entries),
        warnings=len(findings.warnings),
        parts=parts_of(entries),
    )


def run_source(folder: Path, ways: str) -> CriticalSource:
    """A run that measured its noise scale, or was measured.

    Args:
        folder: of the run.
        ways: what else may be given.

    Raises:
        FolderError: neither, or it cannot be read.
    """
    records = RunRecords(folder)
    try:
        entries, result = flat(records.recipe()), records.result()
    except FolderError as error:
        raise FolderError(f"{folder}: {error}; train the run again, or leave the folder out") from None
    content = ((result and result.model_extra) or {}).get("noise_scale")
    readings = [_noise(content, None, "noise scale in training")] if isinstance(content, dict) else []
    warnings = 0
    for path in sorted((folder / "measures").glob(f"{KIND}-*/findings.json")):
        findings = read_findings(path.parent)
        readings += _of_measure(findings, folder, entries)
        warnings += len(findings.warnings)
    if not readings:
        why = "this run has not ended" if result is None else "this run has not measured its noise scale"
        raise FolderError(f"{folder}: {why}; {ways}")
    return CriticalSource(
        folder,
        "noise scale",
        result.recipe if result else folder.name,
        entries,
        minibatch_of(entries),
        tuple(readings),
        line=tuple(_line(records)),
        warnings=warnings,
        parts=parts_of(entries),
    )


def _of_measure(findings: Findings, run: Path | None, entries: Mapping[str, str]) -> tuple[CriticalReading, ...]:
    """The plain noise scale, and the preconditioned one where there is one."""
    content, step = findings.result, number(findings.result.get("step"))
    seen = number(content.get("examples_seen"))
    if seen is None and step is not None:  # of an earlier version
        seen = RunRecords(run).examples_at(step, minibatch_of(entries)) if run else step * minibatch_of(entries) or None
    plain = _noise(content, seen)
    weighted = content.get("preconditioned")
    if not isinstance(weighted, dict):
        return (plain,)
    return plain, _noise({**content, **weighted}, seen, "noise scale, preconditioned")


def _noise(content: Mapping[str, Any], seen: float | None, name: str = "noise scale") -> CriticalReading:
    low, high = ends(content.get("interval"))
    notes = ["not resolved"] if content.get("resolved") is False else []
    notes += [f"unit {content['unit']}"] if content.get("unit") == "worker" else []
    notes += [f"mean over {content['steps']:,} steps"] if seen is None and is_number(content.get("steps")) else []
    level = number(content.get("level"))
    notes += [f"interval of {100 * level:g} %"] if level not in (None, CONFIDENCE) else []
    lowest = low if low else None  # an interval from 0 on has no bound
    return CriticalReading(
        "noise scale", name, seen, number(content.get("noise_scale")), lowest, high, "; ".join(notes)
    )


def _line(records: RunRecords) -> Iterator[tuple[float, float | None]]:
    """(examples seen at the middle of a line, its noise scale) of a run's lines."""
    for seen, examples, line in records.with_examples():
        if "noise_scale" in line:
            yield seen - examples / 2, number(line["noise_scale"])
