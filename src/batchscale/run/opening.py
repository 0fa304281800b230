"""The output folder of a run, opened: a new one, or one that is there and goes on."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

from batchscale.build.inputs import data_at_hand
from batchscale.build.trunk import Trunk
from batchscale.comm import World
from batchscale.data import OwnData
from batchscale.data.contents import Contents, difference, merged
from batchscale.errors import BatchscaleError, CheckpointError, FolderError
from batchscale.recipe import identity, load_recipe
from batchscale.records import Result, RunFolder, read_result
from batchscale.records.folder import attempted, check_free, holds_run
from batchscale.run.branch import read_trunk, state_at_trunk, trunk_of
from batchscale.run.job import Job
from batchscale.training import checkpoint as checkpoints
from batchscale.training.decided import DecidedEarlier
from batchscale.words import shown


def goes_on(job: Job, out: Path) -> bool:
    """Whether this job goes on with a run that is there; everything wrong with the folder is said here.

    Raises:
        FolderError, CheckpointError: no run to go on with, another recipe's run, or no place for a new one.
    """
    if job.resume == "no" or (job.resume == "auto" and not holds_run(out)):
        check_free(out)
        return False
    if not holds_run(out):
        raise FolderError(f"{out}: holds no run to resume; leave --resume out, or use --resume=auto to start or go on")
    try:
        begun = load_recipe(out / "recipe.yaml")
    except BatchscaleError as error:
        raise CheckpointError(f"{error}; start a new run in another --out DIR (nothing was changed)") from None
    checkpoints.check_identity(identity(begun), identity(job.recipe), out)
    trunk_of(job, out)  # also of a finished run: it must be the branch that was asked for
    return True


def finished_result(out: Path) -> Result | None:
    """The result of a run that is done or has diverged, else None (a damaged one is as none: the run goes on)."""
    if not (out / "result.json").is_file():
        return None
    try:
        result = read_result(out)
    except FolderError as error:
        print(f"{str(error).split(';')[0]}; passed over", file=sys.stderr, flush=True)
        return None
    return result if result.status in ("done", "diverged") else None


def trained_on(out: Path) -> Contents:
    """The data that the attempts of a run have recorded; nothing of a run that is too old to have such a record."""
    return merged(attempted(out, "data"))


def check_trained_on(out: Path, trained: Contents, now: Contents) -> None:
    """Raise where the data at hand are not those of the run that is there.

    Args:
        out: of the run.
        trained: from ``trained_on``.
        now: ``Splits.contents`` of the data at hand.

    Raises:
        CheckpointError: names what differs.
    """
    if sentence := difference(trained, now, ("there", "here")):
        raise CheckpointError(
            f"{out}: holds a run on other data: {sentence}; a run goes on with the images that it began with, wherever "
            f"they lie; name these with --data, or give another --out DIR (nothing was changed)"
        )


def check_finished(
    job: Job, out: Path, trained: Contents, world: World | None = None, own_data: OwnData | None = None
) -> None:
    """Raise, on all processes alike, where a finished run is asked for with other data than its own.

    Args:
        job: of this call.
        out: of the run.
        trained: from ``trained_on``.
        world: of this call; None for one process that speaks for all.
        own_data: one's own data set; None for the recipe's.

    Raises:
        CheckpointError: names what differs.
    """
    if trained:
        world = world or World()
        what = "comparing the data with the finished run's"
        check_trained_on(
            out, trained, world.from_rank_zero(lambda: data_at_hand(job.recipe, job.data_folder, own_data), what)
        )


@dataclass
class Opened:
    """What rank 0 found in the output folder, as all processes learn it.

    Attributes:
        out: the folder, which rank 0 has named where the command does not.
        resumed: the folder holds the run already.
        checkpoint: what it goes on from.
        trunk: of a branch.
        at_trunk: the checkpoint is the trunk's: the branch has none of its own yet.
    """

    resumed: bool = False
    checkpoint: checkpoints.Checkpoint | None = None
    finished: Result | None = None
    decided: DecidedEarlier | None = None
    data: Contents = field(default_factory=dict)
    trunk: Trunk | None = None
    at_trunk: bool = False
    out: Path | None = None


def _open(job: Job, out: Path, world: World) -> tuple[RunFolder, Opened]:
    """Lock the folder, then look: what was there before the lock may have changed."""
    if world.job_knows(f"opened {out.resolve()}"):
        job = dataclasses.replace(job, resume="auto")  # a further attempt of the elastic job that began this run
    goes_on(job, out)
    folder = RunFolder(out)
    try:
        resumed = goes_on(job, out)
        if not resumed:
            return folder, _new(job)
        if (finished := finished_result(out)) is not None:
            return folder, Opened(True, None, finished, data=trained_on(out))
        trunk = trunk_of(job, out)
        checkpoint, damaged = checkpoints.newest(out)
        for line in damaged:
            print(f"{shown(line)}; passed over for the one before it", file=sys.stderr, flush=True)
        if checkpoint is not None:
            checkpoints.check_identity(checkpoint.identity, identity(job.recipe), out)
        elif trunk is not None:
            return folder, _again_at_trunk(out, trunk)
        decided = _decided(out, checkpoint)
        return folder, Opened(True, checkpoint, decided=decided, data=trained_on(out), trunk=trunk)
    except BaseException:
        folder.abandon()
        folder.close()
        raise


def _again_at_trunk(out: Path, trunk: Trunk) -> Opened:
    """A branch that was killed before its first checkpoint: what it had recorded, else what its trunk has."""
    checkpoint, origin = state_at_trunk(trunk), Path(trunk.folder)
    decided = _decided(out if attempted(out, "decided") else origin, checkpoint)
    data = trained_on(out) or trained_on(origin)
    return Opened(True, checkpoint, decided=decided, data=data, trunk=trunk, at_trunk=True)


def _new(job: Job) -> Opened:
    """A run that begins: from nothing, or as a branch."""
    if job.branch is None:
        return Opened()
    trunk, checkpoint = read_trunk(job.branch)
    trunk.check(job.recipe)
    decided = _decided(job.branch.run, checkpoint)
    return Opened(False, checkpoint, decided=decided, data=trained_on(job.branch.run), trunk=trunk, at_trunk=True)


def _decided(run: Path, checkpoint: checkpoints.Checkpoint | None) -> DecidedEarlier:
    """What was chosen when the run began, and holds on; of the micro-batch the checkpoint knows best."""
    micro_batch = int(checkpoint.fingerprint["micro_batch"]) if checkpoint else None
    return DecidedEarlier.of(attempted(run, "decided"), micro_batch)


def open_together(job: Job, world: World) -> tuple[RunFolder | None, Opened]:
    """Rank 0 opens the folder, if there is one; everyone learns what is there, or gets rank 0's error."""
    folders: list[RunFolder] = []

    def open_it() -> Opened:
        if job.out is None:
            return _new(job)
        folder, opened = _open(job, job.out, world)
        folders.append(folder)
        opened.out = job.out
        return opened

    opened = world.from_rank_zero(open_it, "opening the output folder")
    return (folders[0] if folders else None), opened
