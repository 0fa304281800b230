"""A run on this process: folder, parts, loop, result. Every process of the run calls ``train_here`` alike."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from batchscale.comm import World
from batchscale.data import Dataset
from batchscale.engine import checkpoint as checkpoints
from batchscale.engine.build import Parts, build, choose_device, load_data
from batchscale.engine.derive import as_text, derived_numbers
from batchscale.engine.fingerprint import check_resume, check_same, fingerprint
from batchscale.engine.loop import Loop
from batchscale.engine.signals import StopSignals
from batchscale.engine.totals import Totals
from batchscale.errors import BatchscaleError, CheckpointError, FolderError
from batchscale.recipe import Recipe, dump_recipe, identity, recipe_from
from batchscale.records import Result, RunFolder, read_result
from batchscale.records.files import write_whole
from batchscale.records.folder import check_free, holds_run
from batchscale.records.provenance import environment

Resume = Literal["no", "yes", "auto"]


class Stopped(BatchscaleError):
    """The run was asked to stop, and did, with a checkpoint."""

    def __init__(self, number: int, steps: int, folder: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {steps}; go on with --resume --out {folder}")
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Job:
    """What to train and where.

    Args:
        name: of the recipe, for the records.
        recipe: resolved.
        out: the run's folder; None to write nothing.
        data_folder: of the data sets.
        resume: "no": a new run; "yes": go on with one; "auto": either.
        quiet: no progress.
    """

    name: str
    recipe: Recipe
    out: Path | None
    data_folder: Path | None = None
    resume: Resume = "no"
    quiet: bool = False


def begun_recipe(out: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        CheckpointError: recipe.yaml is damaged.
    """
    try:
        return recipe_from(yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8")))
    except (BatchscaleError, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{out / 'recipe.yaml'}: damaged ({reason}); start a new run in another --out DIR"
        ) from None


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
    checkpoints.check_identity(identity(begun_recipe(out)), identity(job.recipe), out)
    return True


def finished_result(out: Path) -> Result | None:
    """The result of a run that is done or has diverged, else None."""
    if not (out / "result.json").is_file():
        return None
    result = read_result(out)
    return result if result.status in ("done", "diverged") else None


def elastic_resume(job: Job) -> Resume:
    """How this process finds its folder: after a restart by the elastic agent, a begun run is gone on with."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        return "auto"
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    mark = (job.out or Path()) / ".elastic"
    if job.out is not None and run_id != "none" and mark.is_file() and mark.read_text(encoding="utf-8") == run_id:
        return "auto"  # the same elastic job, started anew because hosts came or went
    return job.resume


def _open_folder(job: Job, out: Path) -> tuple[RunFolder, checkpoints.Checkpoint | None, bool]:
    job = Job(job.name, job.recipe, out, job.data_folder, elastic_resume(job), job.quiet)
    resumed = goes_on(job, out)
    folder = RunFolder(out)
    if not resumed:
        folder.write_recipe(dump_recipe(job.recipe))
        if run_id := os.environ.get("TORCHELASTIC_RUN_ID"):
            write_whole(out / ".elastic", run_id.encode())
        return folder, None, False
    try:
        checkpoint, damaged = checkpoints.newest(out)
        for line in damaged:
            print(f"{line}; passed over for the one before it", file=sys.stderr, flush=True)
        if checkpoint is not None:
            checkpoints.check_identity(checkpoint.identity, identity(job.recipe), out)
    except BatchscaleError:
        folder.close()
        raise
    return folder, checkpoint, True


def _restore(parts: Parts, checkpoint: checkpoints.Checkpoint) -> None:
    state = parts.state()
    missing = sorted(set(state) ^ set(checkpoint.tensors))
    if missing:
        raise CheckpointError(
            f"checkpoint of step {checkpoint.step}: holds another model's state ({missing[0]!r} differs)"
        )
    for name, tensor in state.items():
        saved = checkpoint.tensors[name]
        if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
            raise CheckpointError(
                f"checkpoint of step {checkpoint.step}: {name} is {saved.dtype} {tuple(saved.shape)} there, "
                f"{tensor.dtype} {tuple(tensor.shape)} here: another model"
            )
        with torch.no_grad():
            tensor.copy_(saved)


def _share_initial_weights(parts: Parts) -> None:
    """Everyone starts from rank 0's weights (they differ only for a module handed in with weights of its own)."""
    weights = parts.model.state_dict()
    mine = checkpoints.tensors_sha256(weights)
    if len(set(parts.world.gather(mine))) > 1:
        first = parts.world.from_rank_zero(lambda: {n: t.cpu() for n, t in weights.items()})
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(first[name])


def train_here(job: Job, model: nn.Module | None = None, data: Dataset | None = None) -> Result:
    """Train on this process, one of the W that the environment describes (one without a launcher).

    Args:
        job: what to train and where.
        model: one's own module, trained in place; None for the recipe's.
        data: one's own data set; None for the recipe's.

    Returns:
        The result, on every process.

    Raises:
        UsageError: the recipe, the data or the folder will not do.
        ProcessError: another process died, hung or disagreed.
        Stopped: SIGINT or SIGTERM was received by a process of the run.
    """
    threads = torch.get_num_threads()
    world = World.connect(choose_device(job.recipe), job.recipe.execution.timeout_seconds)
    folder: RunFolder | None = None
    parts: Parts | None = None
    try:
        with StopSignals() as signals:
            resumed, checkpoint = False, None
            if job.out is not None:
                folder, checkpoint, resumed = _shared_folder(job, job.out, world)
            dataset = load_data(job.recipe, job.data_folder, data)
            reuse = int(checkpoint.fingerprint["micro_batch"]) if checkpoint else None
            parts = build(job.recipe, world, dataset, model=model, own_data=data is not None, micro_batch=reuse)
            return _train(job, parts, folder, checkpoint, resumed, signals)
    finally:
        if parts is not None:
            parts.close()
        if folder is not None:
            folder.close()
        torch.set_num_threads(threads)
        world.close()


def _shared_folder(job: Job, out: Path, world: World) -> tuple[RunFolder | None, checkpoints.Checkpoint | None, bool]:
    """Rank 0 opens the folder; everyone gets the checkpoint, or rank 0's error."""
    opened: list[RunFolder] = []

    def open_it() -> tuple[checkpoints.Checkpoint | None, bool]:
        folder, checkpoint, resumed = _open_folder(job, out)
        opened.append(folder)
        return checkpoint, resumed

    checkpoint, resumed = world.from_rank_zero(open_it, "opening the output folder")
    return (opened[0] if opened else None), checkpoint, resumed


def _train(
    job: Job,
    parts: Parts,
    folder: RunFolder | None,
    checkpoint: checkpoints.Checkpoint | None,
    resumed: bool,
    signals: StopSignals,
) -> Result:
    recipe, world = job.recipe, parts.world
    mine = fingerprint(recipe.numerics, parts.threads, parts.micro_batch, world.device)
    check_same(world.gather(mine))
    first_step, totals = 0, Totals()
    if checkpoint is None:
        _share_initial_weights(parts)
    else:
        if recipe.numerics.exact or checkpoint.fingerprint.get("exact") == "True":
            check_resume(checkpoint.fingerprint, mine)
        _restore(parts, checkpoint)
        first_step, totals = checkpoint.step, Totals(**checkpoint.totals)
    loop = Loop(parts, totals, first_step, mine, folder, signals, job.quiet)
    rows = derived_numbers(recipe, len(parts.dataset.train_labels), world.size)
    if folder is not None:
        folder.rewind(first_step)
        folder.write_environment(
            {
                **environment(),
                "processes": world.size,
                "from_step": first_step,
                "decided": {"micro_batch": parts.micro_batch, "threads": parts.threads, "algorithm": "builtin"},
                "fingerprint": mine,
                "derived": [vars(row) for row in rows],
            }
        )
    if world.rank == 0 and not job.quiet:
        print(as_text(rows), file=sys.stderr, flush=True)
        if resumed:
            where = f"at step {first_step}" if checkpoint else "at step 0: it was killed before its first checkpoint"
            print(f"resuming {where}", file=sys.stderr, flush=True)
    if not loop.run():
        raise Stopped(signals.received or signal.SIGTERM, loop.steps_done, job.out or Path("."))
    return _finish(job, parts, loop, folder)


def _finish(job: Job, parts: Parts, loop: Loop, folder: RunFolder | None) -> Result:
    totals, recipe = loop.totals, job.recipe
    weights = parts.model.state_dict()
    content: dict[str, Any] = {
        "status": "done" if totals.diverged_at_step is None else "diverged",
        "recipe": job.name,
        "folder": str(job.out) if job.out else "",
        **totals.errors_summary(),
        "train_loss": totals.train_loss,
        "steps": loop.steps_done,
        "epochs": round(float(loop.steps_done / loop.plan.steps_per_epoch), 6),
        "images_per_second": round(totals.images / totals.step_seconds, 2) if totals.step_seconds else None,
        "wall_seconds": round(loop.wall_seconds(), 3),
        "weights_sha256": checkpoints.tensors_sha256(weights),
        "processes": parts.world.size,
        "workers": recipe.minibatch.workers,
        "per_worker": recipe.minibatch.per_worker,
        "diverged_at_step": totals.diverged_at_step,
        "evaluated_on": "holdout" if recipe.data.holdout else "test",
        "exact": recipe.numerics.exact,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if folder is not None:
        write_whole(folder.path / "weights.safetensors", checkpoints.to_bytes(weights))
        folder.write_result(content)
    parts.world.from_rank_zero(lambda: None, "the end of the run")
    return Result.model_validate(content)
