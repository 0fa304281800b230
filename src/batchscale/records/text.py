"""A table as text: the one writer of tables for terminals."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from batchscale.records.findings import Table

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?%)?")
_WIDEST = 100_000  # letters of a line: nothing is folded, a terminal may do that


def as_text(table: Table, columns: bool = True) -> str:
    """The rows as aligned lines below the names of the columns; title and caption are the caller's.

    A column that holds a number stands to the right; an empty cell (None) is a dash.

    Args:
        table: what to write.
        columns: whether their names are written.
    """
    rows = [["-" if cell is None else str(cell) for cell in row] for row in table.rows]
    grid = Grid(box=None, show_header=columns, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for place, name in enumerate(table.columns):
        is_number = any(_NUMBER.fullmatch(row[place]) for row in rows)
        grid.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))  # a Text, for a plain string's brackets would be marks
    console = Console(file=io.StringIO(), width=_WIDEST, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
