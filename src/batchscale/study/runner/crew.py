"""Runs of one call to a study: some waiting, J at work, the rest ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchscale.launch.signals import StopSignals
from batchscale.study.runner.board import Lines, Live, Standing, share_done
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.runner.work import Attempt, Launcher, Work

_SHOW_SECONDS = 0.5


@dataclass
class _Running:
    cell: Cell
    work: Work
    attempt: Attempt
    begun: float
    share_before: float

    def share(self) -> float:
        return share_done(self.work.folder, self.cell.recipe.epochs, self.cell.first_epoch)


class Crew:
    """Runs to carry out, J at once.

    Args:
        launcher: starts them.
        jobs: J.
        waiting: the cells, in order, and their work.
        ended: outcomes known before, for the board.
        close: (cell, its attempt's error or "") -> its outcome; None for one that was asked to stop before its end.
    """

    def __init__(
        self,
        launcher: Launcher,
        jobs: int,
        waiting: Sequence[tuple[Cell, Work]],
        ended: Sequence[Outcome],
        close: Callable[[Cell, str, bool], Outcome | None],
    ) -> None:
        self._launcher, self._jobs, self._close = launcher, jobs, close
        self._waiting, self._running, self.ended = list(waiting), list[_Running](), list(ended)
        self.runs = len(self._waiting) + len(self.ended)
        self._seconds, self._whole_runs = 0.0, 0.0

    def work(self, board: Lines | Live) -> int | None:
        """Carry all out; the signal that stopped it, or None."""
        shown = 0.0
        try:
            with StopSignals() as signals:
                while self._waiting or self._running:
                    self._start()
                    time.sleep(self._launcher.poll_seconds)
                    self._collect(board, signals.requested())
                    if signals.requested():
                        self._stop(board)
                        return signals.received
                    if time.monotonic() - shown > _SHOW_SECONDS:
                        shown = time.monotonic()
                        board.show(self._state())
            return None
        finally:
            for running in self._running:
                running.attempt.kill()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._jobs:
            cell, work = self._waiting.pop(0)
            share = share_done(work.folder, cell.recipe.epochs, cell.first_epoch)
            self._running.append(_Running(cell, work, self._launcher.start(work), time.monotonic(), share))

    def _collect(self, board: Lines | Live, stopping: bool) -> None:
        """Take in what has ended."""
        for running in list(self._running):
            error = running.attempt.ended()
            if error is None:
                continue
            self._running.remove(running)
            self._seconds += time.monotonic() - running.begun
            self._whole_runs += 1 - running.share_before
            outcome = self._close(running.cell, error, stopping)
            if outcome is not None:
                self.ended.append(outcome)
                board.ended(outcome, self._state())

    def _stop(self, board: Lines | Live) -> None:
        """Ask the running ones for a checkpoint, and wait for them; a second signal acts as usual."""
        for running in self._running:
            running.attempt.stop()
        while self._running:
            time.sleep(self._launcher.poll_seconds)
            self._collect(board, True)

    def _state(self) -> Standing:
        """Time left: mean seconds of a run so far, times the runs left, over those that run at once."""
        shares = [(running, running.share()) for running in self._running]
        seconds = self._seconds + sum(time.monotonic() - r.begun for r in self._running)
        runs = self._whole_runs + sum(max(share - r.share_before, 0.0) for r, share in shares)
        left = len(self._waiting) + sum(1 - share for _, share in shares)
        at_once = max(min(self._jobs, len(self._waiting) + len(self._running)), 1)
        named = [(r.work.folder.name, share) for r, share in shares]
        return Standing(self.runs, tuple(self.ended), named, seconds / runs * left / at_once if runs else None)
