"""A CSV of somebody's measurements, row by row; what is wrong with it, in one line that names the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.errors import DataError
from batchscale.words import did_you_mean, shown

_MOST_BYTES = 1 << 26  # a table of measurements is small; anything larger is another kind of file


@dataclass(frozen=True)
class CsvRow:
    """One row of a CSV.

    Args:
        place: file and line, for errors.
        cells: column -> text, without blanks around it.
    """

    place: str
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """A cell; "" where it is empty, or the table has no such column."""
        return self.cells.get(column, "")

    def positive(self, column: str) -> float:
        """A number above 0.

        Raises:
            DataError: missing, no number, not finite, zero or negative.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            setting = f"{column}={shown(text)}" if text else f"{column} is missing"
            raise DataError(f"{self.place}: {setting}: must be a number above 0; correct it, or leave the row out")
        return value

    def count(self, column: str) -> int:
        """A whole number of at least 1.

        Raises:
            DataError: it is none.
        """
        value = self.positive(column)
        if value != int(value):
            raise DataError(f"{self.place}: {column}={self.text(column)}: must be a whole number; correct it")
        return int(value)


def read_rows(path: Path, needed: Sequence[str], one_of: Sequence[str] = ()) -> Iterator[CsvRow]:
    """The rows of a CSV with a header.

    Args:
        path: of the file.
        needed: columns that it must have.
        one_of: columns of which it must have one.

    Raises:
        DataError: it cannot be read, is no CSV, has no row, or lacks a column.
    """
    name = shown(str(path))
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{name}: larger than {_MOST_BYTES >> 20} MiB, so no table of measurements; give another")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); give a CSV file") from None
    except UnicodeDecodeError:
        raise DataError(f"{name}: not UTF-8 text; give a CSV file") from None
    try:
        rows = list(csv.reader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"{name}: no CSV ({error}); give one with a header") from None
    header = [column.strip() for column in rows[0]] if rows else []
    _check_columns(name, header, needed, one_of)
    if len(rows) < 2:
        raise DataError(f"{name}: has a header and no row; give a table with measurements")
    for number, row in enumerate(rows[1:], 2):
        if any(cell.strip() for cell in row):
            place = f"{name}, row {number}"
            if len(row) != len(header):
                raise DataError(f"{place}: {len(row)} cells for {len(header)} columns; correct it")
            yield CsvRow(place, dict(zip(header, (cell.strip() for cell in row), strict=True)))


def _check_columns(name: str, header: Sequence[str], needed: Sequence[str], one_of: Sequence[str]) -> None:
    """Raise where a header lacks a column.

    Raises:
        DataError: names it, what may be meant by it, and all that is needed.
    """
    all_needed = ", ".join(filter(None, (*needed, " or ".join(one_of))))
    groups = [*((column,) for column in needed), *([tuple(one_of)] if one_of else [])]
    others = [column for column in header if column not in (*needed, *one_of)]
    for group in groups:
        if not set(group) & set(header):
            meant = did_you_mean(group[-1], others)
            raise DataError(f"{name}: has no column {' or '.join(group)}; {meant}it needs {all_needed}")
