"""Results of ``bench step`` and ``bench data`` -> a figure of images per second, tables, a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.words import counted

_STEP_RATIOS = {
    "to_ceiling": "its ceiling",
    "to_best_documented_peer": "the best peer",
    "to_tuned_peer": "the tuned peer",
}
_DATA_RATIOS = {"to_best_peer": "the best peer"}
_WITHOUT_RECIPE = {"photographs": (), "folder": ("--data", "DIR")}
"""What a document says in the place of a recipe -> what the command has in its place."""
_BARS = "Medians; a bar is as long as the interquartile range, centred on the median."


class _Row(BaseModel):
    name: str
    images_per_second: float
    images_per_cpu_second: float
    iqr: float


class _Rates(BaseModel):
    recipe: str
    minibatch: dict[str, int]
    rows: list[_Row]
    ratios: dict[str, float | None]
    ratio_iqr: dict[str, float | None] = {}
    not_measurable_now: list[str] = []
    conditions: dict[str, Any]
    notes: list[str] = []


class StepDocument(_Rates):
    """What ``bench step --json`` prints."""

    processes: int


class _Data(BaseModel):
    name: str
    what: str
    images: int


class DataDocument(_Rates):
    """What ``bench data --json`` prints."""

    threads: int
    data: _Data


@dataclass(frozen=True)
class Part:
    """What one document adds to the page."""

    title: str
    answer: str
    command: tuple[str, ...]
    conditions: dict[str, Any]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]


def step_part(found: StepDocument) -> Part:
    """Of ``bench step``."""
    processes = counted(found.processes, "process")
    return Part(
        title=f"A training step of {found.recipe}, {processes}",
        answer=f"over {processes} batchscale trains {found.recipe} at {_said(found, _STEP_RATIOS)}",
        command=("batchscale", "bench", "step", found.recipe, *_minibatch(found), "--processes", f"{found.processes}",
                 "--json"),
        conditions=found.conditions,
        figures=(_figure(found, "step"),),
        tables=(_rows(found), _ratios(found)),
        warnings=_warnings(found),
    )  # fmt: skip


def data_part(found: DataDocument) -> Part:
    """Of ``bench data``."""
    named = _WITHOUT_RECIPE.get(found.recipe, (found.recipe,))
    return Part(
        title=f"Minibatches of {found.data.name}, {found.threads} decoding threads or loader workers",
        answer=f"on {found.threads} threads batchscale makes minibatches of {found.data.name} ({found.data.what}) at "
        f"{_said(found, _DATA_RATIOS)}",
        command=("batchscale", "bench", "data", *named, *_minibatch(found), "--threads", f"{found.threads}", "--json"),
        conditions=found.conditions,
        figures=(_figure(found, "data"),),
        tables=(_rows(found), _ratios(found)),
        warnings=_warnings(found),
    )


def _minibatch(found: _Rates) -> tuple[str, ...]:
    return tuple(f"minibatch.{entry}={found.minibatch.get(entry, 0)}" for entry in ("workers", "per_worker"))


def _said(found: _Rates, ratios: Mapping[str, str]) -> str:
    """batchscale's images/s, and how many times as fast it is."""
    mine = [f"{row.images_per_second:,.0f} images/s" for row in found.rows if row.name == "batchscale"]
    known = {key: ratio for key, ratio in found.ratios.items() if ratio is not None}
    return ", ".join([*mine, *(f"{known[key]:.2f} times {of}" for key, of in ratios.items() if key in known)])


def _warnings(found: _Rates) -> tuple[str, ...]:
    return (*found.notes, *(f"{key}: not measurable now" for key in found.not_measurable_now))


def _figure(found: _Rates, id_: str) -> Figure:
    names = tuple(row.name for row in reversed(found.rows))
    places = {name: place + 1 for place, name in enumerate(names)}
    points = Series(
        name="images/s",
        x=tuple(row.images_per_second for row in found.rows),
        y=tuple(places[row.name] for row in found.rows),
        low=tuple(row.images_per_second - row.iqr / 2 for row in found.rows),
        high=tuple(row.images_per_second + row.iqr / 2 for row in found.rows),
        style="points",
    )
    return Figure(
        id=id_,
        title="Images per second",
        caption=_BARS,
        x=Axis(label="images/s"),
        y=Axis(label="contender", names=names),
        series=(points,),
    )


def _rows(found: _Rates) -> Table:
    return Table(
        title="Contenders",
        columns=("contender", "images/s", "iqr", "images per CPU-second"),
        rows=tuple((r.name, r.images_per_second, r.iqr, r.images_per_cpu_second) for r in found.rows),
    )


def _ratios(found: _Rates) -> Table:
    known = ((key, ratio) for key, ratio in found.ratios.items() if ratio is not None)
    return Table(
        title="Ratios",
        columns=("ratio", "median", "iqr"),
        rows=tuple((key.replace("_", " "), ratio, found.ratio_iqr.get(key)) for key, ratio in known),
        caption="Of images/s, over paired rounds.",
    )
