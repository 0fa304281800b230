"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from tqdm import tqdm

_LINE_SECONDS = 5.0
_WAIT_SECONDS = 30.0  # between later lines of something that no step ends


class Progress:
    """Examples a second, loss, lr and time left, of rank 0; silent on the others.

    Args:
        total_steps: of the run.
        first_step: where this attempt begins.
        quiet: say nothing.
    """

    def __init__(self, total_steps: int, first_step: int, quiet: bool) -> None:
        self._total, self._certain, self._quiet = total_steps, True, quiet
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
            of, most = ("/", "") if self._certain else (" of at most ", "at most ")
            left = f"{most}{seconds:.0f} s left"
            self.say(f"step {done}{of}{self._total}  {speed}  loss {shown}  lr {lr:.4g}  {left}")

    def expect(self, total_steps: int, certain: bool) -> None:
        """The steps of the run as they are now; not certain: it may end after fewer."""
        self._total, self._certain = total_steps, certain
        if self._bar is not None:
            self._bar.total = total_steps

    @contextmanager
    def during(self, what: str) -> Iterator[Callable[[float], None]]:
        """Within it a line after some seconds, and now and then another: of what no step ends.

        A thread's, for all of it may be one pass.

        Args:
            what: is done, such as "evaluating 27 images".

        Yields:
            Takes the share that is done, from 0 to 1.
        """
        shares, ended = [0.0], Event()
        teller = Thread(target=self._tell, args=(what, shares, ended), name="batchscale-progress", daemon=True)
        if not self._quiet:
            teller.start()
        try:
            yield shares.append
        finally:
            ended.set()
            if not self._quiet:
                teller.join()

    def _tell(self, what: str, shares: list[float], ended: Event) -> None:
        begun, seconds = time.monotonic(), _LINE_SECONDS
        while not ended.wait(seconds):
            passed, share, seconds = time.monotonic() - begun, shares[-1], _WAIT_SECONDS
            left = f", {100 * share:.0f} % done, {passed * (1 - share) / share:.0f} s left" if share else ""
            self.say(f"{what}: {passed:.0f} s so far{left}")

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
