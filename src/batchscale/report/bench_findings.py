"""Results of ``bench step``, ``bench data`` and ``bench allreduce``, saved as JSON files -> findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from batchscale.errors import FolderError
from batchscale.records.files import parse_json
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.report.bench_rates import DataDocument, Part, StepDocument, data_part, step_part
from batchscale.words import counted

_STEP, _DATA = {"rows", "ratios", "processes"}, {"rows", "ratios", "threads", "data"}
_ALLREDUCE = {"rows", "auto", "limit", "processes"}
"""Keys by which a document is known."""


class _AllReduceRow(BaseModel):
    algorithm: str
    bytes: int
    seconds: float
    iqr_seconds: float = 0.0
    bus_gigabytes_per_second: float


class _Auto(BaseModel):
    bytes: int
    algorithm: str
    seconds: float
    builtin_seconds: float
    builtin_tuned_seconds: float
    not_measurable_now: bool = False


class _Limit(BaseModel):
    bytes: int
    each_gigabytes_per_second: float


class _AllReduce(BaseModel):
    processes: int
    rows: list[_AllReduceRow]
    auto: list[_Auto]
    limit: list[_Limit]
    conditions: dict[str, Any]
    notes: list[str] = []


def bench_findings(folder: Path) -> tuple[Findings, list[tuple[str, str]]]:
    """All results of benchmarks in a folder on one page, and (file, reason) of JSON files passed over.

    Raises:
        FolderError: there is none.
    """
    parts: dict[str, Part] = {}
    skipped = []
    for path in sorted(folder.glob("*.json")):
        try:
            parts[path.stem] = _read_part(path)
        except FolderError as error:
            skipped.append((path.name, str(error)))
    if not parts:
        why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise FolderError(
            f"{folder}: holds no study, no run and no result of bench{why}; give the folder of a study or a run, "
            f"or save what bench --json prints there as a .json file"
        )
    return _together(parts), skipped


def _together(parts: Mapping[str, Part]) -> Findings:
    """One page of all documents; the file's name stands before each one's titles where there are several."""
    several = len(parts) > 1
    before = {name: f"{name}: " if several else "" for name in parts}
    every = list(parts.items())
    answers = [part.answer for part in parts.values()]
    return Findings(
        kind="bench",
        title=f"{len(every)} results of benchmarks" if several else every[0][1].title,
        recipe="",
        asked="How fast is it on this machine? All contenders in turn; medians, with interquartile ranges.",
        answer=f"{_sentence('; '.join(answers))}.",
        command=tuple(word for n, (_, part) in enumerate(every) for word in (["&&"] if n else []) + [*part.command]),
        figures=tuple(_entitled(figure, before[name]) for name, part in every for figure in part.figures),
        tables=tuple(_entitled(table, before[name]) for name, part in every for table in part.tables),
        warnings=tuple(before[name] + warning for name, part in every for warning in part.warnings),
        environment={name: part.conditions for name, part in every} if len(every) > 1 else every[0][1].conditions,
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


_Titled = TypeVar("_Titled", Figure, Table)


def _entitled(part: _Titled, before: str) -> _Titled:
    return part.model_copy(update={"title": before + part.title})


def _read_part(path: Path) -> Part:
    """One file.

    Raises:
        FolderError: it is no result of bench, or damaged; the message is the reason alone.
    """
    try:
        document: Any = parse_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        raise FolderError("is not JSON") from None
    keys = document.keys() if isinstance(document, dict) else set()
    try:
        if keys >= _STEP:
            return step_part(StepDocument.model_validate(document))
        if keys >= _DATA:
            return data_part(DataDocument.model_validate(document))
        if keys >= _ALLREDUCE:
            return _allreduce_part(_AllReduce.model_validate(document))
    except ValidationError as error:
        first = error.errors()[0]
        raise FolderError(f"is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    raise FolderError("is no result of bench")


def _allreduce_part(found: _AllReduce) -> Part:
    rows = {
        name: [r for r in found.rows if r.algorithm == name] for name in dict.fromkeys(r.algorithm for r in found.rows)
    }
    times = [_line(name, [(r.bytes, 1e3 * r.seconds) for r in mine]) for name, mine in rows.items()]
    speeds = [_line(name, [(r.bytes, r.bus_gigabytes_per_second) for r in mine]) for name, mine in rows.items()]
    limit = _line("each copying (limit)", [(e.bytes, e.each_gigabytes_per_second) for e in found.limit], "dashed")
    size = Axis(label="bytes of the tensor, float32", scale="log2")
    largest = max(found.auto, key=lambda row: row.bytes, default=None)
    processes = counted(found.processes, "process")
    answer = f"measured over {processes}: {counted(len(rows), 'algorithm')}"
    if largest is not None:
        answer = (
            f"over {processes} {largest.algorithm} is the choice for {largest.bytes / 1e6:.0f} MB and "
            f"takes {1e3 * largest.seconds:.1f} ms, the backend as shipped {1e3 * largest.builtin_seconds:.1f} ms"
        )
    return Part(
        title=f"All-reduce over {processes}",
        answer=answer,
        command=("batchscale", "bench", "allreduce", "--processes", str(found.processes), "--json"),
        conditions=found.conditions,
        figures=(
            Figure(
                id="times", title="Time of an all-reduce", x=size, y=Axis(label="milliseconds", scale="log10"),
                caption="Medians; interquartile ranges stand in the table.", series=tuple(times),
            ),
            Figure(
                id="bandwidth", title="Bus bandwidth", x=size, y=Axis(label="GB/s", scale="log10"),
                caption="2 (W - 1) / W bytes a second; the limit is each process copying as many bytes while all do.",
                series=(*speeds, limit),
            ),
        ),
        tables=(_auto_table(found), _every_table(found)),
        warnings=tuple(found.notes),
    )  # fmt: skip


def _line(name: str, points: Sequence[tuple[float, float]], style: Literal["line", "dashed"] = "line") -> Series:
    return Series(name=name, x=tuple(x for x, _ in points), y=tuple(y for _, y in points), style=style)


def _every_table(found: _AllReduce) -> Table:
    return Table(
        title="Every algorithm at every size",
        columns=("algorithm", "bytes", "ms", "iqr, ms", "GB/s"),
        rows=tuple(
            (
                row.algorithm, row.bytes, _short(1e3 * row.seconds), _short(1e3 * row.iqr_seconds),
                _short(row.bus_gigabytes_per_second),
            )
            for row in found.rows
        ),
    )  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _auto_table(found: _AllReduce) -> Table:
    return Table(
        title="The choice, timed afresh beside the backend",
        columns=("bytes", "algorithm", "ms", "shipped, ms", "tuned, ms", "remark"),
        rows=tuple(
            (
                row.bytes, row.algorithm, *(_short(1e3 * s) for s in _seconds(row)),
                "ratio not measurable now" if row.not_measurable_now else None,
            )
            for row in found.auto
        ),
    )  # fmt: skip


def _seconds(row: _Auto) -> tuple[float, float, float]:
    return row.seconds, row.builtin_seconds, row.builtin_tuned_seconds
