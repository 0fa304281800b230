"""What a study found, as a document: studies write it, `batchscale report` shows it. Never imports torch.

OUT/study.json      what was asked: kind, recipe, options, command
OUT/findings.json   what came out: the answer in one sentence, figures, tables, warnings, every run
OUT/runs/KEY/       one ordinary run folder each
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from batchscale.errors import FolderError
from batchscale.records.files import cannot_read, parse_json, write_json

Scale = Literal["linear", "log2", "log10"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(_Part):
    """One axis of a figure: its words, with the unit, and its scale; or the names of the places 1, 2, ... on it."""

    label: str
    scale: Scale = "linear"
    names: tuple[str, ...] = ()


class Series(_Part):
    """One named line of a figure.

    Args:
        name: as in the legend.
        x, y: one point each; a y of None is a gap.
        low, high: the band or whiskers around y (around x where y's axis has names), as long as y, or empty.
        style: line with points, points alone, dashed (an ideal, a fit: in a neutral colour), a plain line (a curve of
            many points), or a thick one (the reference among such curves).
        runs: the folders behind each point, relative to the study, as long as x, or empty.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    style: Literal["line", "points", "dashed", "curve", "reference"] = "line"
    runs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        for name, allowed in (("y", {len(self.x)}), *((n, {0, len(self.x)}) for n in ("low", "high", "runs"))):
            count = len(getattr(self, name))
            if count not in allowed:
                raise ValueError(f"series {self.name}: {count} values of {name} for {len(self.x)} of x")
        return self


class Mark(_Part):
    """A vertical line at x, a horizontal one at y, or a span from x to x_end, with its words."""

    label: str
    x: float | None = None
    x_end: float | None = None
    y: float | None = None


class Surface(_Part):
    """Values over a grid.

    Args:
        label: of the values, with the unit.
        x, y: where the columns and rows of the grid lie, rising.
        values: a row for every y, as long as x; None where there is no value.
        scale: of the values.
        limits: what the levels cover, so that several figures share a scale; None: the values of this one.
        form: a map of contours, or a relief seen from a corner.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]
    scale: Literal["linear", "log10"] = "linear"
    limits: tuple[float, float] | None = None
    form: Literal["map", "relief"] = "map"

    @model_validator(mode="after")
    def _is_grid(self) -> Self:
        for name, places in (("x", self.x), ("y", self.y)):
            if len(places) < 2 or any(after <= place for place, after in itertools.pairwise(places)):
                raise ValueError(f"surface {self.label}: {name} must be two places and more, rising")
        if len(self.values) != len(self.y) or any(len(row) != len(self.x) for row in self.values):
            raise ValueError(f"surface {self.label}: values must be {len(self.y)} rows of {len(self.x)}")
        return self


class Figure(_Part):
    """A figure as data: the report draws it; over a surface its series are points and paths of the map."""

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    surface: Surface | None = None


class Table(_Part):
    """A table; a cell of None is empty. Numbers are written as they are: round them first."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    caption: str = ""


class Findings(_Part):
    """What a study, a run or a benchmark found.

    Args:
        kind: of study, such as "minibatch-error".
        title: for people.
        recipe: the recipe's name.
        asked: the question, in a sentence or two, with all that limits it (images, epochs, seeds).
        answer: one sentence.
        command: words of the command line that reproduces it.
        rows: one a run: what was varied, status, result, folder.
        figures, tables: in the order of reading.
        warnings: one line each.
        result: the answer as numbers, under the study's own keys (such as "elbow").
        environment: where it was computed (records.provenance).
    """

    kind: str
    title: str
    recipe: str
    asked: str
    answer: str
    command: tuple[str, ...]
    rows: tuple[dict[str, Any], ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    result: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """findings.json, whole or not at all."""
        write_json(folder / "findings.json", self.model_dump(mode="json"))


def read_findings(folder: Path) -> Findings:
    """The findings of a study's folder.

    Raises:
        FolderError: there are none, or they are damaged.
    """
    path = folder / "findings.json"
    try:
        return Findings.model_validate(parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise FolderError(f"{folder}: holds no findings.json: not a study's folder, or one not finished") from None
    except OSError as error:
        raise cannot_read(path, error, "run the study again on its folder") from error
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise FolderError(f"{path}: damaged ({reason}); run the study again on its folder") from None
