"""The files that data.skip_bad passes over, on any process: gathered by the next step, written with every checkpoint.

Cost: nothing in a step that meets no new file (whether one does rides in the step's sum), else one gather of names.
"""

from __future__ import annotations

import sys

from batchscale.comm import World
from batchscale.data.examples import Splits
from batchscale.records import RunFolder
from batchscale.words import counted


class SkippedFiles:
    """What was passed over so far, earlier attempts included; rank 0's is whole, and it alone writes.

    Args:
        dataset: of the run.
        world: its processes.
        folder: where rank 0 writes; None to write nothing.
        used: whether the recipe lets files be passed over; else nothing is asked, told or written.
    """

    def __init__(self, dataset: Splits, world: World, folder: RunFolder | None, used: bool) -> None:
        self._dataset, self._world, self._folder, self._used = dataset, world, folder, used
        self._known: dict[str, str] = folder.skipped() if folder is not None and used else {}
        self._written = len(self._known)

    def _new(self) -> dict[str, str]:
        mine = {**self._dataset.train.skipped(), **self._dataset.test.skipped()} if self._used else {}
        return {file: reason for file, reason in mine.items() if file not in self._known}

    def news(self) -> bool:
        """Whether this process has met a file that the others may not know of."""
        return bool(self._new())

    def share(self) -> None:
        """Let all processes know of every file met so far; called on all of them alike."""
        if self._used:
            for one in self._world.gather(self._new(), "gathering the names of files passed over"):
                self._known.update(one)

    def write(self) -> None:
        """Bring skipped.json up to what this process knows."""
        self._known.update(self._new())
        if self._folder is not None and len(self._known) > self._written:
            self._folder.write_skipped(self._known)
            self._written = len(self._known)

    def count(self) -> dict[str, int]:
        """What the result says of them; nothing where none may be passed over."""
        return {"skipped_files": len(self._known)} if self._used else {}

    def tell(self) -> None:
        """One line on standard error where there are any."""
        if self._known:
            where = f"named in {self._folder.path / 'skipped.json'}" if self._folder is not None else "by data.skip_bad"
            print(f"passed over: {counted(len(self._known), 'data file')}, {where}", file=sys.stderr, flush=True)
