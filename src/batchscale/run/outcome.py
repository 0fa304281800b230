"""What came of a run, as result.json holds it: one that ended, and one that failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from batchscale.errors import BatchscaleError, one_line
from batchscale.noise_scale import NoiseBlocks
from batchscale.recipe import Recipe
from batchscale.records import RunFolder, read_result
from batchscale.records.files import write_json
from batchscale.run.job import Job
from batchscale.run.opening import finished_result
from batchscale.task import Task
from batchscale.training import checkpoint as checkpoints
from batchscale.training.course import Course
from batchscale.training.parts import Parts


def _grown(course: Course) -> dict[str, Any]:
    """Every minibatch of a run that grows, and what measures during the run made of it and of the lr."""
    plan, measured = course.plan, _by_measures(course.parts)
    if not plan.growth and course.parts.growing is None:
        return measured
    phases = [{"step": p.first_step, "epoch": round(float(p.first_epoch), 6), **vars(p.minibatch)} for p in plan.phases]
    return {"phases": phases, **measured}


def _so_far(job: Job, parts: Parts, course: Course) -> dict[str, Any]:
    """What is true of a run after any step, whatever became of it."""
    totals, recipe = course.totals, job.recipe
    fp16, task = recipe.precision == "fp16", parts.step.task
    speed = round(totals.images / totals.step_seconds, 2) if totals.step_seconds else None
    return {
        "recipe": job.name,
        "folder": str(job.out) if job.out else "",
        "task": task.name,
        **dict.fromkeys(("test_error_percent", "test_error_median_last_5")),  # every result has them
        **totals.summary(task.score.key),
        "scores": totals.last_scores,
        "score": {
            "name": task.score.name,
            "value": totals.scores[-1] if totals.scores else None,
            "unit": task.score.unit,
            "better": task.score.better,
        },
        "train_loss": totals.last_epoch_loss(),
        "steps": course.steps_done,
        "epochs": round(float(course.plan.epoch_at(course.steps_done)), 6),
        "images_per_second": speed,
        "examples_per_second": speed,
        "examples": task.examples,
        **_in_parts(task, speed, parts),
        "wall_seconds": round(course.wall_seconds(), 3),
        "evaluation_seconds": round(totals.evaluation_seconds, 3),
        **({"recompute_seconds": round(totals.recompute_seconds, 3)} if parts.recomputation else {}),
        "weights_sha256": None,
        "processes": parts.world.size,
        "workers": recipe.minibatch.workers,
        "per_worker": recipe.minibatch.per_worker,
        **_grown(course),
        **_noise(course),
        "diverged_at_step": totals.diverged_at_step,
        "evaluated_on": "holdout" if recipe.data.holdout else "test",
        "exact": recipe.numerics.exact,
        **({"skipped_steps": totals.skipped_steps, "loss_scales": totals.loss_scales} if fp16 else {}),
        **course.skipped.count(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _noise(course: Course) -> dict[str, Any]:
    """The noise scale over the whole run, where it was measured."""
    blocks = NoiseBlocks(course.totals.noise)
    estimate = blocks.estimate()
    return {} if estimate is None else {"noise_scale": {**estimate.as_json(), "steps": blocks.steps}}


def _by_measures(parts: Parts) -> dict[str, Any]:
    """What measures during the run made of its minibatch and its lr, where they did."""
    decisions = {"decisions": parts.growing.records()} if parts.growing else {}
    steps = {"scale_invariant_steps": round(parts.gain.scale_invariant_steps, 3)} if parts.gain else {}
    return {**decisions, **steps}


def _in_parts(task: Task, speed: float | None, parts: Parts) -> dict[str, Any]:
    """Of a task whose examples consist of parts: what these are, how many an example has, the speed in them."""
    shape = parts.dataset.train.shape
    return {
        entry: value
        for part, each in task.in_parts(1, shape).items()
        for entry, value in {
            "parts": part,
            f"{part}_per_example": each,
            f"{part}_per_second": None if speed is None else round(speed * each, 2),
        }.items()
    }


def _goal(recipe: Recipe) -> dict[str, Any]:
    """The goals of a run, under their names in its result."""
    below, stop_at = recipe.execution.stop_below.model_dump(exclude_none=True), recipe.execution.stop_at
    score = stop_at.model_dump(exclude_none=True) if stop_at else {}
    return {**({"stopped_below": below} if below else {}), **({"stopped_at": score} if score else {})}


def ended(job: Job, parts: Parts, course: Course, weights: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """The result of a run that is done or has diverged, and leaves these weights."""
    totals, goal = course.totals, _goal(job.recipe)
    return {
        "status": "done" if totals.diverged_at_step is None else "diverged",
        **_so_far(job, parts, course),
        **{f"{name}_sha256": checkpoints.tensors_sha256(tensors) for name, tensors in weights.items()},
        **(goal if course.reached_goal else {}),
    }


def record_failure(job: Job, parts: Parts, course: Course, folder: RunFolder, error: Exception) -> None:
    """result.json with status failed and the error's line; a resume goes on all the same."""
    if (folder.path / "result.json").exists():  # it was done, and its processes failed to part
        return
    with contextlib.suppress(BatchscaleError):  # the run's own error is the one to tell
        folder.write_result({"status": "failed", "error": one_line(error), **_so_far(job, parts, course)})


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
