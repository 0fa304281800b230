"""What came of a run, as result.json holds it: one that ended, and one that failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from batchscale.errors import BatchscaleError, one_line
from batchscale.minibatch import StepPlan
from batchscale.records import RunFolder, read_result
from batchscale.records.files import write_json
from batchscale.run.job import Job
from batchscale.run.opening import finished_result
from batchscale.training import checkpoint as checkpoints
from batchscale.training.loop import Loop
from batchscale.training.parts import Parts


def _phases(plan: StepPlan) -> list[dict[str, Any]]:
    """Every minibatch of a run, for its result."""
    return [{"step": p.first_step, "epoch": round(float(p.first_epoch), 6), **vars(p.minibatch)} for p in plan.phases]


def _so_far(job: Job, parts: Parts, loop: Loop) -> dict[str, Any]:
    """What is true of a run after any step, whatever became of it."""
    totals, recipe = loop.totals, job.recipe
    fp16 = recipe.precision == "fp16"
    return {
        "recipe": job.name,
        "folder": str(job.out) if job.out else "",
        **totals.errors_summary(),
        "train_loss": totals.last_epoch_loss(),
        "steps": loop.steps_done,
        "epochs": round(float(loop.plan.epoch_at(loop.steps_done)), 6),
        "images_per_second": round(totals.images / totals.step_seconds, 2) if totals.step_seconds else None,
        "wall_seconds": round(loop.wall_seconds(), 3),
        "evaluation_seconds": round(totals.evaluation_seconds, 3),
        **({"recompute_seconds": round(totals.recompute_seconds, 3)} if parts.recomputation else {}),
        "weights_sha256": None,
        "processes": parts.world.size,
        "workers": recipe.minibatch.workers,
        "per_worker": recipe.minibatch.per_worker,
        **({"phases": _phases(loop.plan)} if loop.plan.growth else {}),
        "diverged_at_step": totals.diverged_at_step,
        "evaluated_on": "holdout" if recipe.data.holdout else "test",
        "exact": recipe.numerics.exact,
        **({"skipped_steps": totals.skipped_steps, "loss_scales": totals.loss_scales} if fp16 else {}),
        **loop.skipped.count(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def ended(job: Job, parts: Parts, loop: Loop, weights: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """The result of a run that is done or has diverged, and leaves these weights."""
    totals, goal = loop.totals, job.recipe.execution.stop_below
    return {
        "status": "done" if totals.diverged_at_step is None else "diverged",
        **_so_far(job, parts, loop),
        **{f"{name}_sha256": checkpoints.tensors_sha256(tensors) for name, tensors in weights.items()},
        **({"stopped_below": goal.model_dump(exclude_none=True)} if loop.stopped_below and goal else {}),
    }


def record_failure(job: Job, parts: Parts, loop: Loop, folder: RunFolder, error: Exception) -> None:
    """result.json with status failed and the error's line; a resume goes on all the same."""
    if (folder.path / "result.json").exists():  # it was done, and its processes failed to part
        return
    with contextlib.suppress(BatchscaleError):  # the run's own error is the one to tell
        folder.write_result({"status": "failed", "error": one_line(error), **_so_far(job, parts, loop)})


def failed_result(job: Job, out: Path, processes: int, error: Exception) -> dict[str, Any]:
    """What result.json holds of a run whose processes failed, ``error`` being what their launcher makes of it.

    A process that could still tell has written the state of the run; the launcher knows better why. Written here
    alone where none could, as after SIGKILL.
    """
    if (finished := finished_result(out)) is not None:
        return finished.model_dump()
    try:
        known = read_result(out).model_dump()
    except BatchscaleError:
        known = {
            "status": "failed", "recipe": job.name, "folder": str(out),
            "test_error_percent": None, "test_error_median_last_5": None, "test_loss": None, "train_loss": None,
            "steps": checkpoints.steps_saved(out), "epochs": 0.0,
            "images_per_second": None, "wall_seconds": 0.0, "weights_sha256": None, "processes": processes,
            "workers": job.recipe.minibatch.workers, "per_worker": job.recipe.minibatch.per_worker,
        }  # fmt: skip
    known["error"] = one_line(error)
    with contextlib.suppress(BatchscaleError):
        write_json(out / "result.json", known)
    return known
