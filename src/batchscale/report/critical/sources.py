"""A folder -> what it says of the critical minibatch: a study of one of two kinds, a measure of the noise scale, a run.

Read from findings.json, study.json, recipe.yaml, result.json and metrics.jsonl alone, and by their keys, so that a page
needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.findings import Findings, read_findings
from batchscale.report.critical.documents import ends, entries_of, minibatch_of, number, parts_of, reference
from batchscale.report.critical.noise import KIND as NOISE
from batchscale.report.critical.noise import measure_source, run_source
from batchscale.report.critical.readings import CriticalReading, CriticalSource, Kind, LargestWithoutLoss

_WITH_CRITICAL: Mapping[str, Kind] = {"steps-to-target": "steps to target", "branch": "branches"}
"""Kind of findings: kind of way."""


def read_source(folder: Path) -> CriticalSource:
    """What a folder says.

    Raises:
        FolderError: it says nothing of the critical minibatch, or cannot be read.
    """
    if (folder / "findings.json").exists():
        findings = read_findings(folder)
        if findings.kind in _WITH_CRITICAL:
            return _of_study(folder, findings)
        if findings.kind.endswith(NOISE):
            return measure_source(folder, findings)
        raise FolderError(f"{folder}: a {findings.kind} study says nothing of the critical minibatch; {_WAYS}")
    if (folder / "recipe.yaml").exists():
        return run_source(folder, _WAYS)
    if (folder / "study.json").exists():
        raise FolderError(f"{folder}: a study that has not finished; give its command again")
    raise FolderError(f"{folder}: says nothing of the critical minibatch; {_WAYS}")


_WAYS = (
    "give folders of study steps-to-target, study branch, measure noise-scale, or runs with execution.noise_scale_steps"
)


def _of_study(folder: Path, findings: Findings) -> CriticalSource:
    entries = reference(folder)
    critical = entries_of(findings.result.get("critical"))
    if "critical" in findings.result and not critical:
        raise FolderError(f"{folder}: a {findings.kind} study without an answer; {_WAYS}")
    if not critical:
        raise FolderError(
            f"{folder}: a {findings.kind} study of an earlier version, without its critical minibatch; give its "
            f"command again: it trains nothing"
        )
    kind = _WITH_CRITICAL[findings.kind]
    rules = dict.fromkeys(entry.get("rule") for entry in critical)
    kn = number(findings.result.get("reference_minibatch")) or minibatch_of(entries)
    names = {rule: f"{kind}, rule {rule}" if len(rules) > 1 else str(kind) for rule in rules}
    return CriticalSource(
        folder,
        kind,
        findings.recipe,
        entries,
        kn,
        tuple(
            _half(kind, names[entry.get("rule")], entry, kn)
            for entry in critical
            if entry.get("definition") == "half_efficiency"
        ),
        tuple(_no_losses(names, critical, kn)),
        warnings=len(findings.warnings),
        parts=parts_of(entries),
    )


def _half(kind: Kind, name: str, entry: Mapping[str, Any], kn: float) -> CriticalReading:
    """Half efficiency as twice the fewest examples there are: of branches B_crit, not twice those of factor 1."""
    twice_first = number(entry.get("minibatch"))
    of_branches = "b_crit" in entry
    value, interval = (entry.get("b_crit"), entry.get("b_crit_interval")) if of_branches else (
        twice_first, entry.get("interval"),
    )  # fmt: skip
    value, low, high = map(_above_zero, (number(value), *ends(interval)))
    beside = twice_first if of_branches else None
    notes = ["unsettled"] if entry.get("settled") is False else []
    notes += ["the curve may have another form"] if entry.get("other_form") is True else []
    notes += [str(entry["why"])] if entry.get("why") else []
    return CriticalReading(kind, name, _seen(entry, kn), value, low, high, "; ".join(notes), beside)


def _above_zero(minibatch: float | None) -> float | None:
    """What is no minibatch is no value, and no bound."""
    return None if minibatch is None or minibatch <= 0 else minibatch


def _no_losses(names: Mapping[Any, str], critical: list[dict[str, Any]], kn: float) -> Iterator[LargestWithoutLoss]:
    for entry in critical:
        if entry.get("definition") == "no_loss":
            note = "unsettled" if entry.get("settled") is False else ""
            _, worse = ends(entry.get("interval"))
            largest = number(entry.get("minibatch"))
            yield LargestWithoutLoss(names[entry.get("rule")], _seen(entry, kn) or 0.0, largest, worse, note)


def _seen(entry: Mapping[str, Any], kn: float) -> float | None:
    """Steps as examples; None: over the whole run."""
    step, examples = number(entry.get("step")), number(entry.get("examples_seen"))
    return examples if examples is not None else None if step is None else step * kn
