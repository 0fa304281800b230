"""The command line in processes of its own, each marked so that nothing it starts can hide."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.processes import living_with

_END_SECONDS = 60  # for killed processes to be gone, on a machine however busy
SMALL = ("digits-cnn", "minibatch.workers=6", "minibatch.per_worker=16", "epochs=2", "execution.log_steps=1")
"""15 steps an epoch of 96 images; no data folder needed."""


class Started:
    """One command with all the processes that it starts."""

    def __init__(
        self,
        *arguments: str,
        module: str = "batchscale",
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.begun = time.time()
        base = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "RANK", "WORLD_SIZE"))}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**base, "BATCHSCALE_TEST_MARK": self.mark, **(environment or {})},
        )

    def living(self) -> dict[int, dict[str, str]]:
        """Every living process of the command, with its environment."""
        return living_with("BATCHSCALE_TEST_MARK", self.mark)

    def rank(self, number: int) -> int:
        """Process id of a rank."""
        return next(pid for pid, e in self.living().items() if e.get("RANK") == str(number))

    def kill_rank(self, number: int) -> None:
        """SIGKILL to a rank, where it lives."""
        for pid, environment in self.living().items():
            if environment.get("RANK") == str(number):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until a condition holds that this living command is to bring about."""
        while not true():
            if self.process.poll() is not None and not true():  # it may have come true at the very end
                raise AssertionError(f"ended before that: {self.process.communicate()}")
            time.sleep(0.01)

    def wait_for_step(self, out: Path, step: int) -> None:
        """Until this command has gone on with the run in ``out`` and the line of this step is there."""
        metrics = out / "metrics.jsonl"
        self.wait_until(
            lambda: (
                metrics.exists() and metrics.stat().st_mtime > self.begun and metrics.read_bytes().count(b"\n") >= step
            )
        )

    def end(self) -> tuple[int, str, str]:
        """(exit code, standard output, standard error), and nothing of it is alive any more."""
        out, err = self.process.communicate()
        deadline = time.monotonic() + _END_SECONDS
        while self.living() and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.living()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes left behind: {list(left)}"
        return self.process.returncode, out, err

    def signal_all(self, number: int) -> None:
        """A signal to every process at once; the first to hear it may have ended the others by then."""
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_all(self) -> None:
        """SIGKILL to every process at once."""
        self.signal_all(signal.SIGKILL)


def run(*arguments: str, **kwargs: Any) -> tuple[int, str, str]:
    """A command from start to end."""
    return Started(*arguments, **kwargs).end()


def result(*arguments: str, **kwargs: Any) -> dict[str, Any]:
    """The JSON result of a command that ends well."""
    code, out, err = run(*arguments, "--json", **kwargs)
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document
