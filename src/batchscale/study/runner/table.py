"""table.csv: one row a run, written whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchscale.records.files import finite, write_whole
from batchscale.words import UNWRITABLE


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as CSV, a column for every key, in the order of first mention; what a row lacks stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(row) for row in rows)
    write_whole(path, text.getvalue().encode("utf-8", UNWRITABLE))
