"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

_LINE_SECONDS = 5.0


class Progress:
    """Examples a second, loss, lr and time left, of rank 0; silent on the others.

    Args:
        total_steps: of the run.
        first_step: where this attempt begins.
        quiet: say nothing.
    """

    def __init__(self, total_steps: int, first_step: int, quiet: bool) -> None:
        self._total, self._most, self._quiet = total_steps, "", quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty() and not quiet
        self._bar = (
            tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True) if self._terminal else None
        )
        self._begun, self._first, self._said = time.monotonic(), first_step, time.monotonic()

    def step(self, done: int, loss: float | None, lr: float, per_second: Mapping[str, float]) -> None:
        """Show the state after so many steps; per_second: {"images": 310.0}."""
        speed = ", ".join(f"{number:,.0f} {noun}/s" for noun, number in per_second.items())
        shown = "not finite" if loss is None else f"{loss:.4f}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{speed}, loss {shown}, lr {lr:.4g}", refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet and time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            seconds = (self._said - self._begun) / max(done - self._first, 1) * (self._total - done)
            left = f"{self._most}{seconds:.0f} s left"
            self.say(f"step {done}/{self._most}{self._total}  {speed}  loss {shown}  lr {lr:.4g}  {left}")

    def expect(self, total_steps: int, certain: bool) -> None:
        """The steps of the run as they are now; not certain: it may end after fewer."""
        self._total, self._most = total_steps, "" if certain else "at most "
        if self._bar is not None:
            self._bar.total = total_steps

    def say(self, line: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
