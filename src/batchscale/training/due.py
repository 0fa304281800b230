"""What is due after a step: a line, an evaluation, a measure, a checkpoint; the loop walks the list in this order.

Anything else that is to happen between two steps is one more member of DUES.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from batchscale.recipe.measuring import MeasureEntry
from batchscale.task import Task
from batchscale.training import checkpoint as checkpoints
from batchscale.training.checksum import tensors_checksum
from batchscale.training.course import Course
from batchscale.training.evaluation import evaluate
from batchscale.training.measuring import CURVATURE, measure_is_due


class Due(Protocol):
    """Something that happens between two steps.

    Attributes:
        together: whether it is due on all processes alike; else it is one process's own affair, such as a file.
    """

    together: bool

    def due(self, course: Course) -> bool:
        """Whether it is due after the last step."""

    def act(self, course: Course) -> None:
        """Do it."""


def line_names(task: Task) -> frozenset[str]:
    """The entries that a line of metrics.jsonl may have without any measure."""
    scores = {f"train_{kind.key}" for kind in task.score_kinds}
    speeds = {f"{noun}_per_second" for noun in (task.examples, task.parts) if noun}
    return frozenset({*_LINE_NAMES, *speeds, *scores})


_LINE_NAMES = (
    "step", "epoch", "loss", "lr", "minibatch", "interval_steps", "phase_seconds", "loss_scale", "skipped_steps",
    "weights_sha256", "weights_checksum", "noise_scale", "gradient_squared", "trace", "noise_steps",
)  # fmt: skip


class GrowthDue:
    """A decision about the minibatch, of a run that grows by a measure: every so many examples."""

    together = True

    def due(self, course: Course) -> bool:
        """By the number of examples."""
        return course.parts.growing is not None and course.parts.growing.due(course.steps_done)

    def act(self, course: Course) -> None:
        """Take it; the plan is another one from then on."""
        if (growing := course.parts.growing) is None:
            return
        if growing.asks is not None:
            growing.note(course.steps_done - 1, {CURVATURE: course.curvature(growing.asks)})
        decision = growing.decide()
        course.progress.expect(course.plan.total_steps, course.plan.total_is_certain)
        if decision.first_step is not None:
            grown = course.plan.minibatch_at(decision.first_step)
            course.progress.say(
                f"epoch {course.epochs:.4g}: minibatch {decision.minibatch} -> {grown.images} from step "
                f"{decision.first_step} on"
            )


class LineDue:
    """A line of metrics.jsonl, and the user's progress: every execution.log_steps, and after the last step."""

    together = True

    def due(self, course: Course) -> bool:
        """By the number of steps."""
        return course.steps_done % course.recipe.execution.log_steps == 0 or course.at_last_step

    def act(self, course: Course) -> None:
        """Sums since the last line become means, and begin anew."""
        step, plan, parts = course.parts.step, course.plan, course.parts
        done = course.steps_done
        lr = step.schedule(done - 1)
        means = course.totals.take_line()
        speed = (plan.images(done) - plan.images(done - means.steps)) / means.seconds
        in_parts = step.task.in_parts(speed, parts.dataset.train.shape)
        phases = step.seconds.take()
        with course.kept():
            scores = step.task.training_scores(means.counts, means.examples) if means.examples else {}
        line: dict[str, Any] = {
            "step": done,
            "epoch": round(course.epochs, 6),
            "loss": means.loss,
            **_rounded(step.task.named(scores, "train_") or _no_score(course)),
            "lr": lr,
            "minibatch": plan.minibatch_at(done - 1).images,
            f"{step.task.examples}_per_second": round(speed, 2),
            **{f"{part}_per_second": round(s, 2) for part, s in in_parts.items()},
            "interval_steps": min(means.steps, done - course.first_step),  # phases are of this attempt alone
            "phase_seconds": phases,
            **means.values,
        }
        if course.recipe.precision == "fp16":
            line["loss_scale"] = step.loss_scale.value
            line["skipped_steps"] = course.totals.skipped_steps
        if course.recipe.numerics.exact and course.folder is not None:
            line |= _weights_of_line(parts.model.state_dict())
        course.append("metrics.jsonl", line)
        course.progress.step(done, means.loss, lr, {step.task.examples: speed, **in_parts})


def _weights_of_line(weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """What tells the weights from others: on a GPU no bytes of theirs cross for it; their sha256 is a checkpoint's."""
    if all(tensor.device.type == "cpu" for tensor in weights.values()):
        return {"weights_sha256": checkpoints.tensors_sha256(weights)}
    return {"weights_checksum": tensors_checksum(weights.values())}


def _rounded(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else round(value, 4) for name, value in scores.items()}


def _no_score(course: Course) -> dict[str, None]:
    """The score's entry of a line without one, where the task has a score in training."""
    task = course.parts.step.task
    return {f"train_{task.score.key}": None} if task.training_counts and not task.predicts else {}


EVALUATION_NAMES = ("step", "epoch", "loss", "scores", "on")
"""The entries that a line of evaluations.jsonl has with any task, beside the name of its examples."""


class EvaluationDue:
    """The test set, or the held-out examples: every so many steps or epochs, and after the last step."""

    together = True

    def due(self, course: Course) -> bool:
        """By execution.evaluation_at, evaluation_steps or evaluation_epochs, the first of them that is given."""
        every = course.recipe.execution
        if course.at_last_step:
            return True
        if every.evaluation_at:
            return course.steps_done in every.evaluation_at
        if every.evaluation_steps is not None:
            return course.steps_done % every.evaluation_steps == 0
        return course.ends_epoch and course.plan.epochs_done(course.steps_done) % every.evaluation_epochs == 0

    def act(self, course: Course) -> None:
        """Evaluate, write the line, tell the user."""
        parts, totals, task = course.parts, course.totals, course.parts.step.task
        totals.evaluation_is_due = True
        start = time.perf_counter()
        chunk = course.recipe.numerics.evaluation_chunk
        what = f"evaluating {len(parts.dataset.test):,} {task.examples}"
        with (
            course.kept(),
            parts.world.patience.longer(),
            parts.evaluated(course.per_worker),
            course.progress.during(what) as tell,
        ):
            evaluated = evaluate(parts.evaluation, task, parts.dataset.test, parts.normalizer, parts.world, chunk, tell)
            if task.predicts:  # they lie on rank 0
                scores = parts.world.from_rank_zero(lambda: task.checked_scores(evaluated))
            else:
                scores = task.checked_scores(evaluated)
        totals.evaluation_seconds += time.perf_counter() - start - course.count_recompute_seconds()
        totals.evaluation_is_due = False
        course.skipped.share()
        totals.add_evaluation(scores, scores[task.score.name], evaluated.loss)
        on_part = "holdout" if course.recipe.data.holdout else "test"
        counts = dict(zip(task.count_names, evaluated.counts, strict=False))
        line = {
            "step": course.steps_done,
            "epoch": round(course.epochs, 6),
            **task.named(scores),
            "loss": evaluated.loss,
            **counts,
            task.examples: evaluated.examples,
            "scores": scores,
            "on": on_part,
        }
        if course.recipe.execution.evaluation_losses:
            line["chunks"] = evaluated.chunks
        course.append("evaluations.jsonl", line)
        course.progress.say(f"epoch {course.epochs:.4g}: {on_part} {task.sentence(scores, evaluated)}")


class MeasureDue:
    """Measures of the state: each of execution.measures every so many steps, and after the last one.

    No checkpoint is written from here: where a measure breaks, a resume begins before it and takes it again.
    """

    together = True

    def due(self, course: Course) -> bool:
        """Whether one of them is."""
        return bool(self._due(course))

    def act(self, course: Course) -> None:
        """Take them, in the recipe's order."""
        for entry in self._due(course):
            course.measure(entry)

    def _due(self, course: Course) -> list[MeasureEntry]:
        ends = course.at_last_step or course.reached_goal
        return [one for one in course.recipe.execution.measures if measure_is_due(one, course.steps_done, ends)]


class CheckpointDue:
    """A checkpoint: after every epoch, at the end, every execution.checkpoint_seconds, and where one is to stay."""

    together = False

    def due(self, course: Course) -> bool:
        """The clock is rank 0's own: it alone writes."""
        if course.saver is not None and course.saver.failed:
            return True  # who saves learns why; not only after another epoch
        if course.ends_epoch or course.at_last_step or course.reached_goal:
            return True
        if course.steps_done in course.parts.kept_steps:
            return True
        return time.monotonic() - course.saved_at >= course.recipe.execution.checkpoint_seconds

    def act(self, course: Course) -> None:
        """Begin it."""
        course.save()


DUES: dict[str, Callable[[Course], Due]] = {
    "growth": lambda course: GrowthDue(),  # before a checkpoint, which holds what was decided
    "line": lambda course: LineDue(),
    "evaluation": lambda course: EvaluationDue(),
    "measure": lambda course: MeasureDue(),
    "checkpoint": lambda course: CheckpointDue(),
}
"""Name -> what may be due in a run; walked in this order after every step."""
