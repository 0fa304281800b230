"""Runs as jobs of a cluster, through submitit: a run of W processes is a job of W tasks, which form the run.

What ``--slurm`` does not say comes from Slurm's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batchscale.errors import UsageError
from batchscale.launch.signals import RUNS_AT_ONCE
from batchscale.records.files import parse_json, write_json
from batchscale.study.runner.queue import BY_CLUSTER, Queue, is_over, reason_of, refusal
from batchscale.study.runner.slurm import Allotment, Cluster
from batchscale.study.runner.work import Attempt, Work, train_task
from batchscale.system.slurm import ask
from batchscale.words import counted


class SubmititAttempt:
    """A run as a job.

    Args:
        number: of the job.
        folder: of submitit's files.
        queue: tells its state.
    """

    def __init__(self, number: str, folder: Path, queue: Queue) -> None:
        self._number, self._folder, self._queue = number, folder, queue
        self._cancelled = False

    def ended(self) -> str | None:
        """None while it waits or runs; then its error in one line, "" where there was none."""
        results = self._results()
        if results.get(0) == "":
            return ""
        state = self._queue.state(self._number, soon=self._cancelled or bool(results))
        if is_over(state):
            return self._error(next((error for error in results.values() if error), ""), str(state))
        return None

    def _results(self) -> dict[int, str]:
        """Task -> its error in one line, "" for none, of those that have left a result; the first to end is first."""
        files = self._folder.glob(f"{self._number}_*_result.pkl")
        with contextlib.suppress(
            OSError, EOFError, pickle.UnpicklingError
        ):  # one that a requeued job replaces just now
            ordered = sorted(files, key=lambda file: file.stat().st_mtime)
            return {int(file.name.split("_")[1]): _error_of(pickle.loads(file.read_bytes())) for file in ordered}
        return {}

    def _error(self, error: str, state: str) -> str:
        if self._cancelled:
            return "cancelled"
        log = self._folder / f"{self._number}_0_log.err"
        if state in BY_CLUSTER:
            return f"job {self._number} was ended by the cluster ({state}); the same command goes on with it; see {log}"
        return f"{error or f'job {self._number} ended ({state}) and left no result'}; see {log}"

    def stop(self) -> None:
        """Cancel it: one that waits is taken from the queue, one that runs writes a checkpoint and ends."""
        self._cancelled = True
        answer = ask("scancel", self._number)
        if answer is None or answer.returncode:
            reason = " ".join(answer.stderr.split()) if answer else "it gives no answer"
            print(f"scancel {self._number}: {reason}", file=sys.stderr, flush=True)

    def kill(self) -> None:
        """The same: a cluster kills a cancelled job by itself."""
        self.stop()


class Refused:
    """A run whose job Slurm has not taken.

    Args:
        error: in one line.
    """

    def __init__(self, error: str) -> None:
        self._error = error

    def ended(self) -> str:
        """Its error."""
        return self._error

    def stop(self) -> None:
        """Nothing to stop."""

    def kill(self) -> None:
        """Nothing to end."""


class SubmititLauncher:
    """Runs as jobs; those that a killed study left waiting or running are taken up again.

    Args:
        folder: of submitit's own files, and of jobs.json: run -> number of its newest job.
        cluster: what is asked of it.
        say: takes a line.

    Raises:
        UsageError: submitit is not installed, or there is no Slurm here.
    """

    poll_seconds = 1.0

    def __init__(self, folder: Path, cluster: Cluster, say: Callable[[str], None] = lambda line: None) -> None:
        self._executor = _executor(folder)
        self._folder, self._cluster, self._say = folder, cluster, say
        self._numbers, self._queue = _read(folder / "jobs.json"), Queue()

    def prepare(self, works: Sequence[Work], jobs: int | None) -> int:
        """Ask Slurm whether it takes jobs for such runs, before one is submitted; one at once where nobody said more.

        Raises:
            UsageError: it does not; says the option.
        """
        if line := self._cluster.short_limit():
            self._say(line)
        for allotment in dict.fromkeys(map(self._cluster.allotment, works)):
            self._prepare("check", allotment)
            refused = refusal(self._executor.flags, self._executor._make_submission_file_text("true", "check"))
            if refused is None:
                continue
            reason, of_this_moment = refused
            run = f"a run of {counted(allotment.tasks, 'process')} on {counted(allotment.nodes, 'node')}"
            if of_this_moment:
                self._say(
                    f"Slurm cannot start {run} as its nodes are now ({reason}): it will wait, perhaps for ever; "
                    f"--slurm ntasks-per-node=N spreads a run over nodes"
                )
                continue
            words = " ".join(["--launcher slurm", *(f"--slurm {flag[2:]}" for flag in self._executor.flags)])
            raise UsageError(f"{words}: sbatch refuses {run}: {reason}; see man sbatch (nothing was submitted)")
        return jobs or 1

    def start(self, work: Work) -> Attempt:
        """Submit a run, unless a job of it is there."""
        number = self._left_over(work)
        if number is None:
            self._prepare(f"batchscale-{work.folder.name}", self._cluster.allotment(work))
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what its error holds
                    number = self._executor.submit(cluster_task, work).job_id
            except RuntimeError as error:  # of submitit: sbatch has refused it, or says no number
                return Refused(f"sbatch refused it: {reason_of(str(error)) or 'it said nothing'}")
            self._numbers[work.folder.name] = number
            write_json(self._folder / "jobs.json", self._numbers)
            self._queue.forget()
        return SubmititAttempt(number, self._folder, self._queue)

    def _prepare(self, name: str, allotment: Allotment) -> None:
        self._executor.flags = list(self._cluster.flags(allotment))
        self._executor.parameters = {}  # what one run asked for is not the next one's
        self._executor.update_parameters(job_name=name, **allotment.parameters())

    def _left_over(self, work: Work) -> str | None:
        """The job of this run that an earlier study submitted, unless Slurm says that it is over; None for no job.

        Where Slurm does not answer it may be there still, and two would share the run's folder.
        """
        number = self._numbers.get(work.folder.name)
        return None if number is None or is_over(self._queue.state(number, soon=True)) else number


def cluster_task(work: Work) -> None:
    """What each task of a job carries out: as one of W processes it takes its place in the run.

    Raises:
        BatchscaleError: the run failed or was stopped.
    """
    os.environ[RUNS_AT_ONCE] = "1"  # the study watches over it: a signal that comes twice is one
    train_task(work)


def _executor(folder: Path) -> Any:
    """Submitit's, which gives sbatch options on its command line, too: there they go before Slurm's variables."""
    try:
        import submitit
    except ImportError:
        raise UsageError("--launcher slurm: needs submitit; install it with: pip install batchscale[slurm]") from None

    class Executor(submitit.SlurmExecutor):
        flags: Sequence[str] = ()

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return ["sbatch", *self.flags, str(submission_file_path)]

    try:
        return Executor(folder)
    except RuntimeError as error:
        raise UsageError(f"--launcher slurm: {error}; give --launcher local on this machine") from None


def _error_of(result: tuple[str, Any]) -> str:
    """Of a task's result: ("success", ...), or ("error", its traceback)."""
    outcome, content = result
    if outcome == "success":
        return ""
    lines = [line for line in str(content).splitlines() if line.strip()]
    kind, colon, sentence = (lines[-1] if lines else "failed").partition(": ")
    sentence = sentence if colon and kind.startswith("batchscale.") else f"{kind}{colon}{sentence}"
    stopped, *way_on = re.split("; (?:go on|start it again by the same launcher) with: ", sentence.strip(), maxsplit=1)
    return f"{stopped}; the same command goes on with it" if way_on else stopped


def _read(path: Path) -> dict[str, str]:
    """jobs.json; nothing where there is none, or it is damaged."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and all(isinstance(n, str) for n in content.values()) else {}
