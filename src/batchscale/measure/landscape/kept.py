"""Finished points on disk, so that a measure that was ended goes on: OUT/points-KEY-RANK.jsonl, a line a point.

KEY hangs on all that the numbers hang on (weights, directions, examples, torch): points of another question lie in
other files, and never mix. A line that was cut short is passed over.
Numbers are written so that the same bits are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscale.records.files import cannot_write

Values = tuple[float | None, ...]
"""Of one point: loss and score of the training part, and of the test part where it is asked for; None: not finite."""
Points = dict[tuple[int, int], Values]
"""By the number of the run, and of the point."""


def key_of(entries: Mapping[str, Any]) -> str:
    """The key of plain entries."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


class KeptPoints:
    """The finished points of one question.

    Args:
        folder: of the findings; None: nothing is kept.
        key: of the question.
        values: how many each point has.
    """

    def __init__(self, folder: Path | None, key: str, values: int) -> None:
        self._folder, self._key, self._values = folder, key, values

    def read(self) -> Points:
        """All that any process has finished."""
        points: Points = {}
        for path in sorted(self._folder.glob(f"points-{self._key}-*.jsonl")) if self._folder else []:
            for line in path.read_bytes().splitlines():
                try:
                    run, point, values = json.loads(line)
                    if len(values) == self._values:
                        points[run, point] = tuple(None if value is None else float(value) for value in values)
                except (ValueError, TypeError):
                    continue
        return points

    def add(self, rank: int, run: int, point: int, values: Values) -> None:
        """Keep a point, on disk when it returns.

        Raises:
            FolderError: the file cannot be written.
        """
        if self._folder is None:
            return
        path = self._folder / f"points-{self._key}-{rank}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                # The line before may have been cut short: an empty one between them is passed over, too.
                file.write(b"\n" + json.dumps([run, point, values]).encode() + b"\n")
        except OSError as error:
            raise cannot_write(path, error, "give another --out DIR") from error
