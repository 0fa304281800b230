"""A folder -> what it says of the critical minibatch: a study of one of two kinds, a measure of the noise scale, a run.

Read from findings.json, study.json, recipe.yaml, result.json and metrics.jsonl alone, and by their keys, so that a page
needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.files import is_number, parse_json
from batchscale.records.findings import Findings, read_findings
from batchscale.records.run import RunRecords
from batchscale.report.critical.readings import CriticalReading, Kind
from batchscale.report.text import flat

_WITH_CRITICAL: Mapping[str, Kind] = {"steps-to-target": "steps to target", "branch": "branches"}
_NOISE = "noise-scale"
"""Kind of findings: kind of way."""


@dataclass(frozen=True)
class LargestWithoutLoss:
    """The largest minibatch without loss after a checkpoint.

    Args:
        name: of the way.
        seen: examples.
        largest: examples; None: not told.
        worse: the smallest that is shown to be worse; None: none.
        note: what limits it.
    """

    name: str
    seen: float
    largest: float | None
    worse: float | None
    note: str


@dataclass(frozen=True)
class CriticalSource:
    """One folder.

    Args:
        folder: as named.
        kind: of way.
        recipe: its name.
        entries: of the recipe that it was measured on, under dotted names.
        minibatch: of the run, in examples.
        readings: over the run, or along it.
        no_loss: of branches.
        line: (examples seen, noise scale) of a run's lines, without intervals.
        warnings: how many stand on its own page.
        parts: what an example consists of, and how many of them; ("", 1) where none count.
    """

    folder: Path
    kind: Kind
    recipe: str
    entries: Mapping[str, str]
    minibatch: float
    readings: tuple[CriticalReading, ...]
    no_loss: tuple[LargestWithoutLoss, ...] = ()
    line: tuple[tuple[float, float | None], ...] = ()
    warnings: int = 0
    parts: tuple[str, int] = ("", 1)


def read_source(folder: Path) -> CriticalSource:
    """What a folder says.

    Raises:
        FolderError: it says nothing of the critical minibatch, or cannot be read.
    """
    if (folder / "findings.json").exists():
        findings = read_findings(folder)
        if findings.kind in _WITH_CRITICAL:
            return _of_study(folder, findings)
        if findings.kind.endswith(_NOISE):
            return _of_measure(folder, findings)
        raise FolderError(f"{folder}: a {findings.kind} study says nothing of the critical minibatch; {_WAYS}")
    if (folder / "recipe.yaml").exists():
        return _of_run(folder)
    if (folder / "study.json").exists():
        raise FolderError(f"{folder}: a study that has not finished; give its command again")
    raise FolderError(f"{folder}: says nothing of the critical minibatch; {_WAYS}")


_WAYS = (
    "give folders of study steps-to-target, study branch, measure noise-scale, or runs with execution.noise_scale_steps"
)


def _of_study(folder: Path, findings: Findings) -> CriticalSource:
    entries = _reference(folder)
    critical = [entry for entry in _list(findings.result.get("critical")) if isinstance(entry, dict)]
    if not critical:
        raise FolderError(
            f"{folder}: a {findings.kind} study of an earlier version, without its critical minibatch; give its "
            f"command again: it trains nothing"
        )
    kind = _WITH_CRITICAL[findings.kind]
    rules = dict.fromkeys(entry.get("rule") for entry in critical)
    kn = _number(findings.result.get("reference_minibatch")) or _minibatch(entries)
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
        parts=_parts(entries),
    )


def _half(kind: Kind, name: str, entry: Mapping[str, Any], kn: float) -> CriticalReading:
    """Half efficiency as twice the fewest examples there are: of branches B_crit, not twice those of factor 1."""
    twice_first = _number(entry.get("minibatch"))
    of_branches = "b_crit" in entry
    value, interval = (entry.get("b_crit"), entry.get("b_crit_interval")) if of_branches else (
        twice_first, entry.get("interval"),
    )  # fmt: skip
    low, high = _ends(interval)
    beside = twice_first if of_branches else None
    notes = ["unsettled"] if entry.get("settled") is False else []
    notes += ["the curve may have another form"] if entry.get("other_form") is True else []
    notes += [str(entry["why"])] if entry.get("why") else []
    return CriticalReading(kind, name, _seen(entry, kn), _number(value), low, high, "; ".join(notes), beside)


def _no_losses(names: Mapping[Any, str], critical: list[dict[str, Any]], kn: float) -> Iterator[LargestWithoutLoss]:
    for entry in critical:
        if entry.get("definition") == "no_loss":
            note = "unsettled" if entry.get("settled") is False else ""
            _, worse = _ends(entry.get("interval"))
            largest = _number(entry.get("minibatch"))
            yield LargestWithoutLoss(names[entry.get("rule")], _seen(entry, kn) or 0.0, largest, worse, note)


def _seen(entry: Mapping[str, Any], kn: float) -> float | None:
    """Steps as examples; None: over the whole run."""
    step, examples = _number(entry.get("step")), _number(entry.get("examples_seen"))
    return examples if examples is not None else None if step is None else step * kn


def _of_measure(folder: Path, findings: Findings) -> CriticalSource:
    run = next((above for above in (folder, *folder.resolve().parents) if (above / "recipe.yaml").exists()), None)
    entries = flat(RunRecords(run).recipe()) if run else _reference(folder)
    step = _number(findings.result.get("step"))
    seen = _number(findings.result.get("examples_seen"))
    if seen is None and step is not None:
        seen = _examples_at(run, step) if run else step * _minibatch(entries)
    return CriticalSource(
        folder,
        "noise scale",
        findings.recipe,
        entries,
        _minibatch(entries),
        (_noise(findings.result, seen),),
        warnings=len(findings.warnings),
        parts=_parts(entries),
    )


def _of_run(folder: Path) -> CriticalSource:
    records = RunRecords(folder)
    try:
        entries, result = flat(records.recipe()), records.result()
    except FolderError as error:
        raise FolderError(f"{folder}: {error}; train the run again, or leave the folder out") from None
    measured = ((result and result.model_extra) or {}).get("noise_scale")
    if result is None or not isinstance(measured, dict):
        why = "this run has not ended" if result is None else "this run has not measured its noise scale"
        raise FolderError(f"{folder}: {why}; {_WAYS}")
    reading = _noise(measured, None, "noise scale in training")
    return CriticalSource(
        folder,
        "noise scale",
        result.recipe,
        entries,
        _minibatch(entries),
        (reading,),
        line=tuple(_line(records)),
        parts=_parts(entries),
    )


def _noise(content: Mapping[str, Any], seen: float | None, name: str = "noise scale") -> CriticalReading:
    low, high = _ends(content.get("interval"))
    notes = ["not resolved"] if content.get("resolved") is False else []
    notes += [f"unit {content['unit']}"] if content.get("unit") == "worker" else []
    notes += [f"mean over {content['steps']:,} steps"] if seen is None and is_number(content.get("steps")) else []
    value = _number(content.get("noise_scale"))
    return CriticalReading("noise scale", name, seen, value, low, high, "; ".join(notes))


def _line(records: RunRecords) -> Iterator[tuple[float, float | None]]:
    """(examples seen at the middle of a line, its noise scale) of a run's lines."""
    for seen, examples, line in _along(records):
        if "noise_scale" in line:
            yield seen - examples / 2, _number(line["noise_scale"])


def _examples_at(run: Path, step: float) -> float:
    """Examples that were seen after a step; by the last minibatch where the lines end before it."""
    total, done, minibatch = 0.0, 0.0, _minibatch(flat(RunRecords(run).recipe()))
    for seen, _, line in _along(RunRecords(run)):
        if line["step"] > step:
            minibatch = line["minibatch"]
            break
        total, done, minibatch = seen, line["step"], line["minibatch"]
    return total + (step - done) * minibatch


def _along(records: RunRecords) -> Iterator[tuple[float, float, Mapping[str, Any]]]:
    """(examples seen, examples of the line, the line)."""
    seen, done = 0.0, 0.0
    for line in records.metrics():
        if is_number(line.get("step")) and is_number(line.get("minibatch")) and line["step"] > done:
            examples = (line["step"] - done) * line["minibatch"]
            seen, done = seen + examples, line["step"]
            yield seen, examples, line


def _reference(folder: Path) -> dict[str, str]:
    """The recipe that a study's runs start from."""
    try:
        content: Any = parse_json((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    reference = content.get("reference") if isinstance(content, dict) else None
    return flat(reference) if isinstance(reference, dict) else {}


def _minibatch(entries: Mapping[str, str]) -> float:
    try:
        return float(entries["minibatch.workers"]) * float(entries["minibatch.per_worker"])
    except (KeyError, ValueError):
        return 0.0


def _parts(entries: Mapping[str, str]) -> tuple[str, int]:
    """Those that have parts are cut from a text."""
    sequence = entries.get("data.sequence", "")
    return ("tokens", int(sequence)) if sequence.isascii() and sequence.isdecimal() else ("", 1)


def _ends(interval: Any) -> tuple[float | None, float | None]:
    if not isinstance(interval, list) or len(interval) != 2:
        return None, None
    low, high = map(_number, interval)
    return low, high


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
