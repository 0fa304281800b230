"""Runs as jobs of a cluster, through submitit; each job is one run on one node.

Partition, account and time limit come from Slurm's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchscale.errors import UsageError
from batchscale.records.files import parse_json, write_json
from batchscale.study.runner.work import Work, train_task

CLUSTER = "slurm"
_LONGEST_MINUTES = 24 * 60  # submitit asks for 5 minutes where nothing is said; SBATCH_TIMELIMIT goes before this


class SubmititAttempt:
    """A run as a job.

    Args:
        job: of submitit.
        work: that it carries out.
    """

    def __init__(self, job: Any, work: Work) -> None:
        self._job, self._work = job, work
        self._cancelled = False

    def ended(self) -> str | None:
        """None while it waits or runs; then its error in one line, "" where there was none."""
        if not self._job.done(force_check=self._cancelled):  # else it asks the cluster ever more seldom
            return None
        if self._cancelled and not self._job.paths.result_pickle.exists():
            return "cancelled"  # submitit would look out for its result for another 15 s
        error = self._job.exception()
        if error is None:
            return ""
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{lines[-1].strip() if lines else type(error).__name__}; see {self._job.paths.stderr}"

    def stop(self) -> None:
        """Cancel it: one that waits is taken from the queue, one that runs writes a checkpoint and ends."""
        self._cancelled = True
        self._job.cancel(check=False)

    def kill(self) -> None:
        """The same: a cluster kills a cancelled job by itself."""
        self.stop()


class SubmititLauncher:
    """Runs as jobs; those that a killed study left waiting or running are taken up again.

    Args:
        folder: of submitit's own files, and of jobs.json: run -> number of its newest job.

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
        self._folder, self._earlier_job = folder, submitit.SlurmJob
        self._numbers = _read(folder / "jobs.json")

    def start(self, work: Work) -> SubmititAttempt:
        """Submit a run, unless a job of it is there."""
        if (job := self._left_over(work)) is not None:
            return SubmititAttempt(job, work)
        self._executor.update_parameters(
            name=f"batchscale-{work.folder.name}",
            timeout_min=_LONGEST_MINUTES,
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=work.processes * _threads(work),
        )
        job = self._executor.submit(train_task, work)
        self._numbers[work.folder.name] = job.job_id
        write_json(self._folder / "jobs.json", self._numbers)
        return SubmititAttempt(job, work)

    def _left_over(self, work: Work) -> Any:
        """The job of this run that an earlier study submitted and the cluster still has; None where there is none."""
        number = self._numbers.get(work.folder.name)
        if number is None:
            return None
        job: Any = self._earlier_job(self._folder, number)
        return None if job.done(force_check=True) or job.state == "UNKNOWN" else job


def _read(path: Path) -> dict[str, str]:
    """jobs.json; nothing where there is none, or it is damaged."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and all(isinstance(n, str) for n in content.values()) else {}


def _threads(work: Work) -> int:
    wanted = work.recipe.numerics.threads
    return wanted if isinstance(wanted, int) else 1
