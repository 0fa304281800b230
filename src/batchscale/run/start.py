"""The one way to begin a run, or to go on with it: commands, studies, the demonstration and Python come by here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.build.build import validate
from batchscale.build.together import LISTING, offered
from batchscale.build.trunk import Trunk
from batchscale.errors import RunError
from batchscale.launch.processes import Interrupted, launch
from batchscale.recipe import dump_recipe
from batchscale.records import RunLock
from batchscale.records.folder import attempts
from batchscale.run.branch import read_trunk, trunk_of
from batchscale.run.job import Job
from batchscale.run.measuring import check_measures
from batchscale.run.opening import check_finished, check_trained_on, finished_result, goes_on, trained_on
from batchscale.run.outcome import failed_result
from batchscale.run.run import Stopped, train_here
from batchscale.system.caches import places_restored
from batchscale.system.interpreter import variables
from batchscale.system.launcher import is_worker
from batchscale.system.temporary import temporary_folder
from batchscale.training.checkpoint import steps_saved

if TYPE_CHECKING:
    from torch import nn

    from batchscale.data import OwnData
    from batchscale.records import Result
    from batchscale.task import Task


def start(
    job: Job,
    processes: int = 1,
    restarts: int = 0,
    *,
    model: nn.Module | None = None,
    data: OwnData | None = None,
    task: Task | None = None,
) -> Result:
    """Train a job to its end, on this process or on W that are started here.

    One process trains here, so that the data set is read once. Below a launcher this process is one of those that it
    has started, and takes its place among them.

    Args:
        job: what to train and where.
        processes: W.
        restarts: how often all processes are started again after one failed.
        model: one's own module, trained in place, by one process or below a launcher; None for the recipe's.
        data: one's own data set, alike; None for the recipe's.
        task: one's own task, alike; None for the recipe's.

    Returns:
        The result; of a run that was finished before, the one it has left.

    Raises:
        UsageError: the recipe, the data or the folder will not do; nothing was lost on disk.
        RunError: the run broke; where it had begun, result.json says why.
        Stopped, Interrupted: it was asked to stop, and left a checkpoint.
    """
    with places_restored():
        return _start(job, processes, restarts, model, data, task)


def _start(
    job: Job, processes: int, restarts: int, model: nn.Module | None, data: OwnData | None, task: Task | None
) -> Result:
    check_measures(job.recipe)
    if is_worker():
        return train_here(job, model, data, task)
    begun = attempts(job.out) if job.out else 0
    try:
        if processes == 1 and restarts == 0:
            return train_here(job, model, data, task)
        if job.out is None or any(own is not None for own in (model, data, task)):
            raise ValueError("processes that are started know a run by its recipe and its folder alone")
        return _train_in_processes(job, job.out, processes, restarts)
    except (Stopped, Interrupted):
        raise
    except Exception as error:
        if job.out is not None and attempts(job.out) > begun:
            failed_result(job, job.out, processes, error)
        raise


def _train_in_processes(job: Job, out: Path, processes: int, restarts: int) -> Result:
    """Say everything that can be said before any process starts, then start them."""
    resumed = goes_on(job, out)
    if resumed:
        if (finished := finished_result(out)) is not None:
            check_finished(job, out, trained_on(out))
            return finished
        RunLock(out, wait_seconds=5.0).release()
    try:
        with (
            offered(_listed(job, out, processes, resumed)) as path,
            temporary_folder("batchscale-") as folder,
            variables(**{LISTING: path}),
        ):
            launch(_arguments(job, out, Path(folder)), processes, restarts, job.command, job.way_on)
    except Interrupted as error:
        raise Interrupted(error.exit_code - 128, f"checkpoint of step {steps_saved(out)}; {job.way_on}") from None
    result = finished_result(out)
    if result is None:
        raise RunError(f"{out}: all processes ended well, but left no result.json; {job.way_on}")
    return result


def _listed(job: Job, out: Path, processes: int, resumed: bool) -> Any:
    """Say everything that can be said of the recipe and its data; returns what these have listed, to be handed on."""
    dataset = validate(job.recipe, job.data_folder, processes, trunk=_trunk(job, out, resumed))
    if resumed:
        check_trained_on(out, trained_on(out), dataset.contents)
    return dataset.listing


def _trunk(job: Job, out: Path, resumed: bool) -> Trunk | None:
    """Of a branch, new or begun."""
    if resumed:
        return trunk_of(job, out)
    if job.branch is None:
        return None
    trunk, _ = read_trunk(job.branch)
    trunk.check(job.recipe)
    return trunk


def _arguments(job: Job, out: Path, folder: Path) -> list[str]:
    """The command line of every process; the recipe travels as a file, resolved, so that all of them read the same."""
    file = folder / f"{job.name}.yaml"
    file.write_text(dump_recipe(job.recipe), encoding="utf-8")
    arguments = ["train", str(file), "--out", str(out)]
    if job.data_folder is not None:
        arguments += ["--data", str(job.data_folder)]
    if job.resume != "no":
        arguments.append(f"--resume={job.resume}")
    if job.branch is not None:
        arguments += ["--branch", str(job.branch.run)]
        arguments += ["--at", str(job.branch.step)] if job.branch.step is not None else []
    return [*arguments, "--debug"] if job.debug else arguments
