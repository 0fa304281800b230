"""The command that a run was begun with, goes on with, or is repeated with, as words of a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from batchscale.members.loading import named

_TORCHRUN = ("torchrun", "torch.distributed.run")


def this_command(words: Sequence[str] | None = None) -> list[str]:
    """What started this process; of one of torchrun's processes, the launcher's own words.

    Args:
        words: of batchscale's command line; None where this process may have come another way, such as by a script.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and (launcher := _torchrun()):
        return launcher
    if words is not None:
        return ["batchscale", *words]
    program = Path(sys.argv[0])
    if program.name == "batchscale" or program.parent == Path(__file__).parents[1]:
        return ["batchscale", *sys.argv[1:]]
    return [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]


def _torchrun() -> list[str]:
    """The parent's words where that is torchrun and the system tells them; else none."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []
    line = [os.fsdecode(word) for word in words]
    place = next((place for place, word in enumerate(line) if Path(word).name in _TORCHRUN), None)
    return [] if place is None else ["torchrun", *line[place + 1 :]]


def resumption(command: Sequence[str], out: Path | str) -> str:
    """The command that goes on with a run, for a shell.

    Args:
        command: began it.
        out: its folder.
    """
    words = [word for word in command if not word.startswith("--resume")]
    if not any(word == "--out" or word.startswith("--out=") for word in words):
        words += ["--out", str(out)]
    return shlex.join([*words, "--resume=auto"])  # it may have stopped before its folder held anything


def repetition(folder: Path, processes: int, data_folder: Path | None) -> tuple[str, ...]:
    """The words that train the run of this folder again, alone, into a new one."""
    many = ["--processes", str(processes)] if processes > 1 else []
    data = ["--data", str(data_folder)] if data_folder is not None else []
    plugins = [word for name in named() for word in ("--plugin", name)]
    return ("batchscale", "train", str(folder / "recipe.yaml"), *many, *data, *plugins)
