"""What is learned: one task, one small file; TASKS holds them by name."""

from __future__ import annotations

from batchscale.task.base import Evaluated, EvaluatedPass, ScoreKind, Task, TaskBuilder
from batchscale.task.classification import Classification

TASKS: dict[str, TaskBuilder] = {Classification.name: Classification}
"""Name in recipes -> task for so many classes."""

__all__ = ["TASKS", "Classification", "Evaluated", "EvaluatedPass", "ScoreKind", "Task", "TaskBuilder"]
