"""A benchmark's document -> findings, for its own answer and for a page of saved documents. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from batchscale.bench.documents import (
    AllReduceDocument,
    DataDocument,
    Document,
    FrameworksDocument,
    StepDocument,
    read_document,
)
from batchscale.bench.frameworks.findings import findings_of_frameworks
from batchscale.errors import FolderError
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.words import counted

_ASKED = "How fast is it on this machine? All contenders in turn; medians, with interquartile ranges."
_STEP_RATIOS = {
    "to_ceiling": "its ceiling",
    "to_best_documented_peer": "the best peer",
    "to_tuned_peer": "the tuned peer",
}
_DATA_RATIOS = {"to_best_peer": "the best peer"}
_WITHOUT_RECIPE = {"photographs": (), "folder": ("--data", "DIR")}
"""What a document says in the place of a recipe -> what the command has in its place."""
_AFRESH, _LIMIT = "auto, timed afresh", "each copying (limit)"
_BARS = "Medians; a bar is as long as the interquartile range, centred on the median."


def findings_of(document: Document) -> Findings:
    """What a benchmark found; the document itself is the result."""
    if isinstance(document, StepDocument):
        return _of_step(document)
    if isinstance(document, FrameworksDocument):
        return findings_of_frameworks(document)
    return _of_data(document) if isinstance(document, DataDocument) else _of_allreduce(document)


def saved_findings(folder: Path) -> tuple[Findings, list[tuple[str, str]]]:
    """All documents saved in a folder as one, and (file, reason) of JSON files passed over.

    Raises:
        FolderError: there is none.
    """
    parts: dict[str, Findings] = {}
    skipped = []
    for path in sorted(folder.glob("*.json")):
        try:
            parts[path.stem] = findings_of(read_document(path))
        except FolderError as error:
            skipped.append((path.name, str(error)))
    if not parts:
        why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise FolderError(
            f"{folder}: holds no study, no run and no result of bench{why}; give the folder of a study or a run, "
            f"or save what bench --json prints there as a .json file"
        )
    return _together(parts), skipped


def _together(parts: Mapping[str, Findings]) -> Findings:
    """One page of all documents; where there are several, the file's name stands before each one's titles."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    answers = "; ".join(part.answer[:1].lower() + part.answer[1:].rstrip(".") for part in parts.values())
    commands = [part.command for part in parts.values()]
    return Findings(
        kind="bench",
        title=f"{len(parts)} results of benchmarks",
        recipe="",
        asked=_ASKED,
        answer=_sentence(answers),
        command=(*commands[0], *(word for command in commands[1:] for word in ("&&", *command))),
        figures=tuple(_entitled(figure, name) for name, part in parts.items() for figure in part.figures),
        tables=tuple(_entitled(table, name) for name, part in parts.items() for table in part.tables),
        warnings=tuple(f"{name}: {warning}" for name, part in parts.items() for warning in part.warnings),
        environment={name: part.environment for name, part in parts.items()},
    )


_Titled = TypeVar("_Titled", Figure, Table)


def _entitled(part: _Titled, name: str) -> _Titled:
    return part.model_copy(update={"title": f"{name}: {part.title}"})


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _findings(document: Document, title: str, answer: str, command: Iterable[str], **more: Any) -> Findings:
    """Those of any benchmark; ``answer`` is a clause, of which a sentence is made."""
    return Findings(
        kind="bench",
        title=title,
        recipe="",
        asked=_ASKED,
        answer=_sentence(answer),
        command=("batchscale", "bench", *command, "--json"),
        result=document.model_dump(mode="json"),
        environment=document.conditions,
        **more,
    )


def _of_step(document: StepDocument) -> Findings:
    processes = counted(document.processes, "process")
    return _findings(
        document,
        f"A training step of {document.recipe}, {processes}",
        f"over {processes} batchscale trains {document.recipe} at {_speed(document, _STEP_RATIOS)}",
        ("step", document.recipe, *_minibatch(document), "--processes", f"{document.processes}"),
        figures=(_rates_figure(document, "step"),),
        tables=(_rates_table(document), _ratios_table(document)),
        warnings=_warnings(document),
    )


def _of_data(document: DataDocument) -> Findings:
    recipe = _WITHOUT_RECIPE.get(document.recipe, (document.recipe,))
    return _findings(
        document,
        f"Minibatches of {document.data.name}, {document.threads} decoding threads or loader workers",
        f"on {document.threads} threads batchscale makes minibatches of {document.data.name} ({document.data.what}) at "
        f"{_speed(document, _DATA_RATIOS)}",
        ("data", *recipe, *_minibatch(document), "--threads", f"{document.threads}"),
        figures=(_rates_figure(document, "data"),),
        tables=(_rates_table(document), _ratios_table(document)),
        warnings=_warnings(document),
    )


def _minibatch(document: StepDocument | DataDocument) -> tuple[str, ...]:
    return tuple(f"minibatch.{entry}={document.minibatch.get(entry, 0)}" for entry in ("workers", "per_worker"))


def _speed(document: StepDocument | DataDocument, ratios: Mapping[str, str]) -> str:
    """batchscale's images/s, and how many times as fast it is."""
    word = _word(document)
    speeds = [f"{row.images_per_second:,.0f} {word}/s" for row in document.rows if row.name == "batchscale"]
    known = {key: ratio for key, ratio in document.ratios.items() if ratio is not None}
    return ", ".join([*speeds, *(f"{known[key]:.2f} times {other}" for key, other in ratios.items() if key in known)])


def _word(document: StepDocument | DataDocument) -> str:
    return str(document.conditions.get("examples", "images"))


def _warnings(document: StepDocument | DataDocument) -> tuple[str, ...]:
    return (*document.notes, *(f"{key}: not measurable now" for key in document.not_measurable_now))


def _rates_figure(document: StepDocument | DataDocument, ident: str) -> Figure:
    word, names = _word(document), tuple(row.name for row in reversed(document.rows))
    places = {name: place + 1 for place, name in enumerate(names)}
    points = Series(
        name=f"{word}/s",
        x=tuple(row.images_per_second for row in document.rows),
        y=tuple(places[row.name] for row in document.rows),
        low=tuple(row.images_per_second - row.iqr / 2 for row in document.rows),
        high=tuple(row.images_per_second + row.iqr / 2 for row in document.rows),
        style="points",
    )
    x, y = Axis(label=f"{word}/s"), Axis(label="contender", names=names)
    return Figure(id=ident, title=f"{word.capitalize()} per second", caption=_BARS, x=x, y=y, series=(points,))


def _rates_table(document: StepDocument | DataDocument) -> Table:
    return Table(
        title="Contenders",
        columns=("contender", f"{_word(document)}/s", "iqr", f"{_word(document)} per CPU-second"),
        rows=tuple((r.name, r.images_per_second, r.iqr, r.images_per_cpu_second) for r in document.rows),
    )


def _ratios_table(document: StepDocument | DataDocument) -> Table:
    known = ((key, ratio) for key, ratio in document.ratios.items() if ratio is not None)
    return Table(
        title="Ratios",
        columns=("ratio", "median", "iqr", "90 %, low", "90 %, high", "verdict"),
        rows=tuple(
            (
                key.replace("_", " "), ratio, document.ratio_iqr.get(key),
                *(document.ratio_interval.get(key) or (None, None)), document.verdicts.get(key),
            )
            for key, ratio in known
        ),
        caption=f"Of {_word(document)}/s, over paired rounds. The interval is the median's; margin of a verdict: 2 %.",
    )  # fmt: skip


def _of_allreduce(document: AllReduceDocument) -> Findings:
    processes = counted(document.processes, "process")
    algorithms = dict.fromkeys(row.algorithm for row in document.rows)
    largest = max(document.auto, key=lambda row: row.bytes, default=None)
    answer = f"measured over {processes}: {counted(len(algorithms), 'algorithm')}"
    if largest is not None:
        answer = (
            f"over {processes} {largest.algorithm} is the choice for {largest.bytes / 1e6:.0f} MB and "
            f"takes {1e3 * largest.seconds:.1f} ms, the backend as shipped {1e3 * largest.builtin_seconds:.1f} ms"
        )
    return _findings(
        document,
        f"All-reduce over {processes}",
        answer,
        ("allreduce", "--processes", str(document.processes)),
        figures=_allreduce_figures(document, list(algorithms)),
        tables=(_auto_table(document), _every_table(document)),
        warnings=tuple(document.notes),
    )


def _allreduce_figures(document: AllReduceDocument, algorithms: Sequence[str]) -> tuple[Figure, Figure]:
    rows = {name: [row for row in document.rows if row.algorithm == name] for name in algorithms}
    times = [_line(name, [(r.bytes, 1e3 * r.seconds) for r in group]) for name, group in rows.items()]
    speeds = [_line(name, [(r.bytes, r.bus_gigabytes_per_second) for r in group]) for name, group in rows.items()]
    limit = [(row.bytes, row.each_gigabytes_per_second) for row in document.limit]
    length = Axis(label="bytes of the tensor, float32", scale="log2")
    chosen = [(row.bytes, 1e3 * row.seconds, row.bus_gigabytes_per_second) for row in document.auto]
    afresh = _line(_AFRESH, [(size, time) for size, time, _ in chosen], "points")
    afresh_speed = _line(_AFRESH, [(size, speed) for size, _, speed in chosen if speed is not None], "points")
    return (
        Figure(
            id="times", title="Time of an all-reduce", x=length, y=Axis(label="milliseconds", scale="log10"),
            caption="Medians; interquartile ranges stand in the table.",
            series=(*times, *([afresh] if afresh.x else [])),
        ),
        Figure(
            id="bandwidth", title="Bus bandwidth", x=length, y=Axis(label="GB/s", scale="log10"),
            caption="2 (W - 1) / W bytes a second; the limit is each process copying as many bytes while all do.",
            series=(*speeds, *([afresh_speed] if afresh_speed.x else []), _line(_LIMIT, limit, "dashed")),
        ),
    )  # fmt: skip


def _line(
    name: str, points: Sequence[tuple[float, float]], style: Literal["line", "dashed", "points"] = "line"
) -> Series:
    return Series(name=name, x=tuple(x for x, _ in points), y=tuple(y for _, y in points), style=style)


def _every_table(document: AllReduceDocument) -> Table:
    return Table(
        title="Every algorithm at every size",
        columns=("algorithm", "bytes", "ms", "iqr, ms", "GB/s"),
        rows=tuple(
            (
                row.algorithm, row.bytes, _short(1e3 * row.seconds), _short(1e3 * row.iqr_seconds),
                _short(row.bus_gigabytes_per_second),
            )
            for row in document.rows
        ),
    )  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _auto_table(document: AllReduceDocument) -> Table:
    return Table(
        title="The choice, timed afresh beside the backend",
        columns=("bytes", "algorithm", "ms", "shipped, ms", "tuned, ms", "remark"),
        rows=tuple(
            (
                row.bytes, row.algorithm,
                *(_short(1e3 * s) for s in (row.seconds, row.builtin_seconds, row.builtin_tuned_seconds)),
                "ratio not measurable now" if row.not_measurable_now else None,
            )
            for row in document.auto
        ),
    )  # fmt: skip
