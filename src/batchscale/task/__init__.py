"""What is learned: one task, one small file; TASKS holds them by name."""

from __future__ import annotations

from collections.abc import Mapping

from batchscale.members import TASKS as MEMBERS
from batchscale.task.base import Evaluated, EvaluatedPass, ScoreKind, Task, TaskBuilder
from batchscale.task.classification import Classification

TASKS: Mapping[str, TaskBuilder] = MEMBERS
"""Name in recipes -> task for so many classes."""

__all__ = ["TASKS", "Classification", "Evaluated", "EvaluatedPass", "ScoreKind", "Task", "TaskBuilder"]
