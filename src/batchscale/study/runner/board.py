"""What a study shows while it works: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.study.runner.cell import Outcome
from batchscale.words import counted

_LINE_SECONDS = 30.0


@dataclass(frozen=True)
class Standing:
    """A study at one moment.

    Args:
        runs: of the study.
        ended: outcomes so far, those of earlier attempts included.
        running: (name, share done) of each run at work.
        seconds_left: None while nothing is known.
    """

    runs: int
    ended: Sequence[Outcome]
    running: Sequence[tuple[str, float]]
    seconds_left: float | None

    def counts(self) -> str:
        """So many done, diverged, failed, running, waiting."""
        statuses = [o.status for o in self.ended]
        waiting = self.runs - len(statuses) - len(self.running)
        numbers = [(statuses.count(s), s) for s in ("done", "diverged", "failed")]
        return ", ".join(f"{n} {s}" for n, s in [*numbers, (len(self.running), "running"), (waiting, "waiting")] if n)

    def left(self) -> str:
        """Time left, for people."""
        if self.seconds_left is None:
            return "time left unknown"
        minutes, seconds = divmod(round(self.seconds_left), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min {seconds:02d} s left"


def share_done(folder: Path, epochs: float, first_epoch: float = 0.0) -> float:
    """The share of its epochs, of a branch from its first one on, that a run has trained: by its last line of metrics.

    Args:
        folder: of the run.
        epochs: where it ends.
        first_epoch: where it begins.
    """
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - 4096, 0))
            lines = file.read().split(b"\n")
        done = (float(json.loads(lines[-2])["epoch"]) - first_epoch) / (epochs - first_epoch)
        return min(max(done, 0.0), 1.0)
    except (OSError, ValueError, IndexError, KeyError, TypeError):  # none yet, or one that is being written
        return 0.0


def described(outcome: Outcome) -> str:
    """A run that ended, in one line."""
    labels = ", ".join(f"{name} {value}" for name, value in outcome.cell.labels.items())
    if outcome.result is None:
        return f"{labels}: {outcome.status}: {outcome.error}"
    score = outcome.result.judged_by
    value = f"{score.value:.2f} {score.unit}".rstrip() if score.value is not None else ""
    judged = f"{value} {outcome.result.evaluated_on} {score.name}" if value else f"no {score.name} measured"
    return f"{labels}: {outcome.status}, {judged}, {outcome.result.wall_seconds:.1f} s"


class Lines:
    """One line a run that ends, and one every half minute.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def ended(self, outcome: Outcome, state: Standing) -> None:
        """A run has ended."""
        self._last = time.monotonic()
        self._say(f"[{len(state.ended)}/{state.runs}] {described(outcome)}; {state.counts()}; {state.left()}")

    def show(self, state: Standing) -> None:
        """The state now."""
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            shares = ", ".join(f"{name} {share:.0%}" for name, share in state.running)
            self._say(f"[{len(state.ended)}/{state.runs}] {shares}; {state.counts()}; {state.left()}")

    def close(self) -> None:
        """Nothing is left open."""


class Live:
    """A table that renews itself on the terminal; runs that end scroll by above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self._screen = Screen(console=Console(stderr=True), auto_refresh=False)
        self._screen.start()

    def ended(self, outcome: Outcome, state: Standing) -> None:
        """A run has ended."""
        self._screen.console.print(described(outcome), markup=False, highlight=False)
        self.show(state)

    def show(self, state: Standing) -> None:
        """The state now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        shares = sum(share for _, share in state.running)
        bars = [
            (f"{len(state.ended)} of {counted(state.runs, 'run')}", (len(state.ended) + shares) / max(state.runs, 1))
        ]
        for name, share in [*bars, *state.running]:
            table.add_row(Text(name), ProgressBar(1.0, share, width=40), Text(f"{share:.0%}"))
        table.add_row(Text(state.counts()), Text(state.left()))
        self._screen.update(table, refresh=True)

    def close(self) -> None:
        """Leave the last state on the terminal."""
        self._screen.stop()


def make_board(say: Callable[[str], None]) -> Lines | Live:
    """The live table where standard error is a terminal."""
    return Live() if sys.stderr.isatty() else Lines(say)
