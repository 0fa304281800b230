"""Slurm's commands: each is asked with a bound on the wait, and without the user's own defaults for it."""

from __future__ import annotations

import os
import subprocess

_SECONDS = 60.0
_DEFAULTS = ("SQUEUE_", "SCANCEL_", "SCONTROL_")
"""Of a user's variables for a look at the cluster: SQUEUE_PARTITION would hide jobs from us. Not SBATCH_: that says how
jobs are to be submitted."""


def ask(*command: str, text: str | None = None, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str] | None:
    """What a command of Slurm says; None where there is no answer: it hangs, or is not on this machine.

    Args:
        command: its words.
        text: for its standard input; None for nothing.
        seconds: the longest wait.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_DEFAULTS)}
    try:
        return subprocess.run(
            command, input=text or "", capture_output=True, text=True, env=environment, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
