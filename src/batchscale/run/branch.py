"""A branch begun: its trunk read from the folder of a run, and recorded in the branch's own."""

from __future__ import annotations

import os
from pathlib import Path

from batchscale.build.growing import decisions_of
from batchscale.build.trunk import Trunk
from batchscale.errors import BatchscaleError, CheckpointError, FolderError
from batchscale.recipe import load_recipe
from batchscale.records import RunLock
from batchscale.records.files import parse_json, write_json
from batchscale.records.folder import holds_run
from batchscale.run.job import BranchPoint, Job
from batchscale.training import checkpoint as checkpoints

_FILE = "branch.json"


def read_trunk(point: BranchPoint) -> tuple[Trunk, checkpoints.Checkpoint]:
    """The trunk that a branch names, and its checkpoint.

    Raises:
        FolderError: no run is there, or one that is still being written.
        CheckpointError: there is no checkpoint of this step (those that exist are listed), or it is damaged.
    """
    run = point.run
    if not holds_run(run):
        raise FolderError(f"--branch {run}: holds no run; give the folder of a run")
    if os.access(run, os.W_OK):  # nobody writes where nobody may
        try:
            RunLock(run, wait_seconds=5.0).release()  # branches that begin together look one after the other
        except FolderError as error:
            reason = str(error).removeprefix(f"{run}: ").split(";")[0]
            raise FolderError(
                f"--branch {run}: is still being written ({reason}); wait until it has ended, or stop it: a run that "
                f"was stopped can be branched"
            ) from None
    try:
        recipe = load_recipe(run / "recipe.yaml")
    except BatchscaleError as error:
        raise CheckpointError(f"--branch {error}") from None
    folder = checkpoints.folder_of(run, point.step, "--at")
    try:
        checkpoint = checkpoints.load(folder)
    except CheckpointError as error:
        steps = ", ".join(str(checkpoints.steps_of(other)) for other in checkpoints.folders(run) if other != folder)
        others = f"name another step with --at ({steps})" if steps else "give another run"
        raise CheckpointError(f"--branch {run}: {error}; {others}") from None
    digest = checkpoints.tensors_sha256(dict(sorted(checkpoint.tensors.items())))
    decisions = decisions_of(checkpoint.totals)
    return Trunk(str(run.resolve()), checkpoint.step, digest, recipe, recorded_trunk(run), decisions), checkpoint


def recorded_trunk(out: Path) -> Trunk | None:
    """The trunk of a branch, as its folder has recorded it; None of a run by itself.

    Raises:
        CheckpointError: the record is damaged.
    """
    try:
        content = parse_json((out / _FILE).read_text(encoding="utf-8"))
        return Trunk.from_json(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, BatchscaleError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{out / _FILE}: damaged ({reason}): it says which run this one goes on from; begin the branch anew in "
            f"another --out DIR"
        ) from None


def record_trunk(out: Path, trunk: Trunk) -> None:
    """Write down what a branch goes on from."""
    write_json(out / _FILE, trunk.as_json())


def forget_trunk(out: Path) -> None:
    """Take the record back, of a branch that could not begin."""
    (out / _FILE).unlink(missing_ok=True)


def trunk_of(job: Job, out: Path) -> Trunk | None:
    """The trunk of a run that goes on, the same one that the job names, if it names one.

    Raises:
        CheckpointError: the job names another one.
    """
    recorded = recorded_trunk(out)
    if job.branch is None:
        return recorded
    named = job.branch  # by name alone: the trunk itself may be gone, or have gone on
    same = recorded is not None and str(named.run.resolve()) == recorded.folder
    if recorded is None or not same or named.step not in (None, recorded.step):
        held = f"a branch of {recorded.folder}, step {recorded.step}" if recorded else "a run by itself"
        step = "" if named.step is None else f", step {named.step}"
        raise CheckpointError(
            f"{out}: holds {held}, and --branch names {named.run}{step}; leave --branch out to go on "
            f"with it, or give another --out DIR (nothing was changed)"
        )
    return recorded


def state_at_trunk(trunk: Trunk) -> checkpoints.Checkpoint:
    """The trunk's checkpoint again, for a branch that was killed before its own first one.

    Raises:
        CheckpointError: the trunk has moved, or its state is another one now.
    """
    _, checkpoint = again = read_trunk(BranchPoint(Path(trunk.folder), trunk.step))
    if again[0].state_sha256 != trunk.state_sha256:
        raise CheckpointError(f"--branch {trunk.folder}: its state at step {trunk.step} is no longer what it was")
    return checkpoint
