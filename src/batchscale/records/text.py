"""A table as text: the one writer of tables for terminals."""

from __future__ import annotations

import re

from rich.cells import cell_len

from batchscale.records.findings import Table

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?%)?")
_BETWEEN = "  "  # columns
_IN_ONE_LINE = {7: None, 8: None, 9: " ", 10: " ", 11: None, 12: None, 13: None}
"""Control characters that would move the cells after them: those that stand for blanks become one."""


def as_text(table: Table, columns: bool = True) -> str:
    """The rows as aligned lines below the names of the columns; title and caption are the caller's.

    A column that holds a number stands to the right; an empty cell (None) is a dash.

    Args:
        table: what to write.
        columns: whether their names are written.
    """
    rows = [["-" if cell is None else str(cell).translate(_IN_ONE_LINE) for cell in row] for row in table.rows]
    lines = [list(table.columns), *rows] if columns else rows
    is_number = [any(_NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(table.columns))]
    widths = [max((cell_len(line[place]) for line in lines), default=0) for place in range(len(table.columns))]

    def aligned(cell: str, width: int, right: bool) -> str:
        blanks = " " * (width - cell_len(cell))  # letters of some scripts are two cells wide
        return blanks + cell if right else cell + blanks

    return "\n".join(_BETWEEN.join(map(aligned, line, widths, is_number)).rstrip() for line in lines)
