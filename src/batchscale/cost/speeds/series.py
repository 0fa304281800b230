"""Published or measured speeds at several device counts, as series, with what is known to be wrong with some.

A series has equal source, system, model, per-device batch and precision; a device count that stands there several times
counts once, by the median. Texts are compared and printed, never read.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from batchscale.cost.table import CsvRow, read_rows
from batchscale.errors import DataError

Floats = npt.NDArray[np.float64]
SPEED_COLUMNS = ("images_per_second", "examples_per_second")
"""Either of them: all devices together, in the unit that the series has."""
_NEEDED = ("source", "system", "model", "devices", "devices_per_host")
_HALVED = 0.5


@dataclass(frozen=True)
class SeriesName:
    """What is equal in all rows of a series: texts of the table, "" where a cell is empty."""

    source: str
    system: str
    model: str
    per_device_batch: str
    precision: str

    def as_json(self) -> dict[str, str]:
        """Plain JSON."""
        return asdict(self)

    @property
    def text(self) -> str:
        """For sentences."""
        return ", ".join(part for part in astuple(self) if part)


@dataclass(frozen=True)
class SpeedSeries:
    """Speeds at rising device counts.

    Args:
        name: what is equal in its rows.
        devices_per_host: of the system.
        devices: counts, rising.
        speeds: examples a second of all devices together, one a count.
    """

    name: SeriesName
    devices_per_host: int
    devices: tuple[int, ...]
    speeds: tuple[float, ...]

    @property
    def hosts(self) -> Floats:
        """Devices / devices a host (n): below 1 inside a host."""
        return np.array(self.devices, dtype=np.float64) / self.devices_per_host

    @property
    def log_seconds(self) -> Floats:
        """log of the seconds that one device takes for one example, of its own step (n)."""
        return np.asarray(np.log(np.array(self.devices) / np.array(self.speeds)), dtype=np.float64)

    def part(self, first: int, end: int | None = None) -> SpeedSeries:
        """The points first, first + 1, ..., end - 1."""
        chosen = slice(first, end)
        return SpeedSeries(self.name, self.devices_per_host, self.devices[chosen], self.speeds[chosen])

    @property
    def outliers(self) -> tuple[int, ...]:
        """Device counts at which the speed a device is at most half of that of the count below."""
        each = np.exp(-self.log_seconds)
        return tuple(self.devices[i] for i in range(1, len(each)) if each[i] <= _HALVED * each[i - 1])


def read_series(paths: Sequence[Path]) -> list[SpeedSeries]:
    """The series of CSV files, in the order of their first rows; of a folder, of every CSV in it.

    Raises:
        DataError: a file or a row that cannot be used.
    """
    points: dict[SeriesName, dict[int, list[float]]] = {}
    per_host: dict[SeriesName, int] = {}
    for path in _files(paths):
        for row in read_rows(path, _NEEDED, SPEED_COLUMNS):
            name = SeriesName(*(row.text(c) for c in ("source", "system", "model", "per_device_batch", "precision")))
            devices, hosted = row.count("devices"), row.count("devices_per_host")
            if hosted != per_host.setdefault(name, hosted):
                raise DataError(
                    f"{row.place}: devices_per_host={hosted}, and {per_host[name]} in another row of the same source, "
                    f"system, model, per_device_batch and precision; give the two systems different names"
                )
            points.setdefault(name, {}).setdefault(devices, []).append(_speed(row))
    return [
        SpeedSeries(
            name, per_host[name], tuple(sorted(by)), tuple(statistics.median(by[devices]) for devices in sorted(by))
        )
        for name, by in points.items()
    ]


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: a folder without a CSV file; give one that holds tables")
        files += inside
    return files


def _speed(row: CsvRow) -> float:
    return row.positive(next(column for column in SPEED_COLUMNS if column in row.cells))


@cache
def _faults() -> list[dict[str, Any]]:
    text = resources.files("batchscale.cost.speeds").joinpath("faults.yaml").read_text(encoding="utf-8")
    faults: list[dict[str, Any]] = yaml.safe_load(text)
    return faults


def known_fault(name: SeriesName) -> str | None:
    """Why a series cannot be right, in words, where that is known (faults.yaml)."""
    columns = name.as_json()
    for fault in _faults():
        if all(columns[column] == text for column, text in fault["series"].items()):
            return str(fault["reason"])
    return None
