"""TensorBoard event files: the lines of metrics.jsonl and evaluations.jsonl once more, as scalars at their step.

Cost: one record of about 60 bytes a scalar, flushed with every line: a killed run has in its event files what it has in
its lines. A resume begins a new file that hides what earlier ones hold beyond its first step.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscale.errors import UsageError
from batchscale.records.run import MEASURES, METRICS


def check_installed() -> None:
    """Raise unless event files can be written.

    Raises:
        UsageError: the package is missing.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "execution.tensorboard=true: needs the package tensorboard, which is not installed; "
            "install it (pip install 'batchscale[tensorboard]'), or leave execution.tensorboard out"
        )


class EventFiles:
    """Event files of one run.

    Args:
        folder: made where it does not exist.
        steps_done: where this attempt begins; scalars of later steps, of an attempt before, are hidden.

    Raises:
        UsageError: tensorboard is not installed, or cannot write into a folder of this name.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter  # only where it was asked for: this room imports no torch

        try:
            self._writer = SummaryWriter(str(folder), purge_step=steps_done + 1)
        except UnicodeEncodeError:
            raise UsageError(
                f"execution.tensorboard=true: {folder}: tensorboard writes into folders with names in UTF-8 alone; "
                f"give another --out DIR, or leave execution.tensorboard out"
            ) from None

    def append(self, name: str, line: dict[str, Any]) -> None:
        """The numbers of one line, each under its tag at the line's step."""
        for tag, value in scalars(name, line):
            self._writer.add_scalar(tag, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def scalars(name: str, line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of every number of a line but its step.

    train/loss, train/lr, train/minibatch, ..., phase_seconds/data, ...; test/error_percent, test/loss (or holdout/...);
    noise-scale/noise scale, ...
    """
    if name == MEASURES:
        for number in line.get("numbers", ()):
            if number["value"] is not None:
                yield f"{line['measure']}/{number['name']}", number["value"]
        return
    group = "train" if name == METRICS else line["on"]
    for entry, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{entry}/{inner}", number) for inner, number in value.items())
        elif isinstance(value, int | float) and entry != "step":
            yield f"{group}/{entry}", value
