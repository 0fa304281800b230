"""What Slurm says of the jobs of a study, by squeue: that needs no accounting, as sacct does.

Cost: one call for all jobs, seldom while they are left alone.
"""

from __future__ import annotations

import time

from batchscale.system.slurm import ask

_SELDOM_SECONDS, _SOON_SECONDS = 30.0, 2.0
_OVER = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
        "REVOKED", "TIMEOUT",
    }
)  # fmt: skip
BY_CLUSTER = _OVER - {"COMPLETED", "FAILED"}
"""States of a job that the cluster, or who cancelled it, has ended."""
UNLISTED = "unlisted"
"""Of a job that Slurm has forgotten, some minutes after its end."""
_NOT_NOW = (
    "Requested node configuration is not available", "Requested nodes are busy",
    "Required node not available (down, drained or reserved)",
)  # fmt: skip


class Queue:
    """The states of one's own jobs, by their numbers."""

    def __init__(self) -> None:
        self._states: dict[str, str] | None = None
        self._read = float("-inf")

    def state(self, number: str, soon: bool = False) -> str | None:
        """As squeue writes it, such as PENDING; UNLISTED; None where Slurm does not answer.

        Args:
            number: of the job.
            soon: something has happened to it: ask after 2 s, not after 30.
        """
        if time.monotonic() - self._read >= (_SOON_SECONDS if soon else _SELDOM_SECONDS):
            self._states, self._read = _states(), time.monotonic()
        return None if self._states is None else self._states.get(number, UNLISTED)

    def forget(self) -> None:
        """A job was submitted, so what was read before does not list it."""
        self._read = float("-inf")


def is_over(state: str | None) -> bool:
    """Whether a job in this state has ended for good; one that Slurm requeues waits again."""
    return state is not None and (state in _OVER or state == UNLISTED)


def _states() -> dict[str, str] | None:
    answer = ask("squeue", "--me", "--noheader", "--states=all", "--format=%A %T")
    if answer is None or answer.returncode:
        return None
    return dict(line.split()[:2] for line in answer.stdout.splitlines() if len(line.split()) >= 2)


def refusal(words: list[str], script: str) -> tuple[str, bool] | None:
    """Why Slurm would not take such a job; None where it would.

    Args:
        words: options of sbatch.
        script: a batch script.

    Returns:
        Its reason in one line, and whether it is one of this moment: such a job is taken and waits, perhaps for ever.
    """
    answer = ask("sbatch", "--test-only", *words, text=script)
    if answer is None:  # nor would it answer when the job is submitted, and for that there is no bound
        return "it gives no answer", False
    if not answer.returncode:
        return None
    reason = reason_of(answer.stderr) or f"sbatch ended with exit code {answer.returncode}"
    return reason, any(words in reason for words in _NOT_NOW)


def reason_of(text: str) -> str:
    """The first line of sbatch's errors, without what it begins with."""
    lines = [line for line in text.splitlines() if line.strip() and "warning:" not in line]
    line = lines[0] if lines else ""
    for beginning in ("sbatch: ", "error: ", "fatal: ", "allocation failure: ", "Batch job submission failed: "):
        line = line.removeprefix(beginning)
    return " ".join(line.split())
