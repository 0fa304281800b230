"""Runs as jobs of a cluster, through submitit; each job is one run on one node.

Partition, account and time limit come from Slurm's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchscale.errors import UsageError
from batchscale.study.task import Task, train_task

CLUSTER = "slurm"
_LONGEST_MINUTES = 24 * 60  # submitit asks for 5 minutes where nothing is said; SBATCH_TIMELIMIT goes before this


class SubmititAttempt:
    """A run as a job.

    Args:
        job: of submitit.
        task: that it carries out.
    """

    def __init__(self, job: Any, task: Task) -> None:
        self._job, self._task = job, task

    def ended(self) -> str | None:
        """None while it waits or runs; then its error in one line, "" where there was none."""
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return ""
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{lines[-1].strip() if lines else type(error).__name__}; see {self._job.paths.stderr}"

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self._job.cancel(check=False)

    def kill(self) -> None:
        """End it: a cluster kills a cancelled job by itself."""
        self._job.cancel(check=False)


class SubmititLauncher:
    """Runs as jobs.

    Args:
        folder: of submitit's own files.

    Raises:
        UsageError: submitit is not installed, or there is no Slurm here.
    """

    poll_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError(
                "--launcher slurm: needs submitit; install it with: pip install batchscale[slurm]"
            ) from None
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        except RuntimeError as error:
            raise UsageError(f"--launcher slurm: {error}; give --launcher local on this machine") from None

    def start(self, task: Task) -> SubmititAttempt:
        """Submit a task."""
        self._executor.update_parameters(
            name=f"batchscale-{task.folder.name}",
            timeout_min=_LONGEST_MINUTES,
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=task.processes * _threads(task),
        )
        return SubmititAttempt(self._executor.submit(train_task, task), task)


def _threads(task: Task) -> int:
    wanted = task.recipe.numerics.threads
    return wanted if isinstance(wanted, int) else 1
