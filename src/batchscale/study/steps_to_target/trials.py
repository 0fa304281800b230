"""Trials of one minibatch -> the steps to the goal: the first evaluation past it over all trials.

S(B) = min over trials of the first step s with an evaluation past the goal

s is a multiple of the evaluation interval: the goal was passed after the evaluation before it, and at s at the latest.

Source: Shallue et al. 2018, section 3.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from batchscale.errors import UsageError
from batchscale.records.files import is_number, read_lines

_GOAL = re.compile(r"([^<>\s](?:[^<>]*[^<>\s])?)\s*([<>])\s*(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*%?", re.ASCII)
_ENTRIES = {"error": "error_percent", "loss": "loss"}


@dataclass(frozen=True)
class Goal:
    """A bound that a score of the held-out images, or their loss, must pass.

    Args:
        measure: "error" (percent), "loss", or the name of another score of the task.
        bound: to be passed, not only met.
        better: which way; of error and loss always "lower".
    """

    measure: str
    bound: float
    better: Literal["lower", "higher"] = "lower"

    @property
    def is_of_task(self) -> bool:
        """Whether it asks for a score by the task's own name, not for the error or the loss."""
        return self.measure not in _ENTRIES

    @property
    def stops(self) -> dict[str, Any]:
        """The entries of a recipe's execution that end a run at this goal, and at no other."""
        if self.is_of_task:
            return {"stop_below": {}, "stop_at": {"score": self.measure, self.side: self.bound}}
        return {"stop_below": {_ENTRIES[self.measure]: self.bound}, "stop_at": None}

    @property
    def side(self) -> str:
        """Where the values that meet it lie."""
        return "below" if self.better == "lower" else "above"

    @property
    def other_side(self) -> str:
        """Where the values that do not meet it lie."""
        return "above" if self.better == "lower" else "below"

    @property
    def words(self) -> str:
        """As on the command line."""
        return f"{self.measure}{'<' if self.better == 'lower' else '>'}{self.bound:g}"

    @property
    def text(self) -> str:
        """As in a sentence; the unit of a task's own score stands in its results alone."""
        return f"{self.measure} {self.side} {self.bound:g}{' %' if self.measure == 'error' else ''}"

    def as_json(self) -> dict[str, Any]:
        """Its entries in documents."""
        if self.is_of_task:
            return {"goal": {self.measure: self.bound}, "better": self.better}
        return {"goal": {_ENTRIES[self.measure]: self.bound}}

    def value_text(self, value: float) -> str:
        """A value of the measure, with its unit."""
        return f"{value:.2f} %" if self.measure == "error" else f"{value:.4g}"

    def is_in(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of evaluations.jsonl has a value of the measure (null: not finite)."""
        key, values = self._place(line)
        return key in values and (values[key] is None or is_number(values[key]))

    def value(self, line: Mapping[str, Any]) -> float | None:
        """The measure in a line that has it; None where it is not finite."""
        key, values = self._place(line)
        value: float | None = values[key]
        return value

    def _place(self, line: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        if not self.is_of_task:
            return _ENTRIES[self.measure], line
        scores = line.get("scores")
        return self.measure, scores if isinstance(scores, dict) else {}

    def meets(self, value: float | None) -> bool:
        """Whether a value is past the bound; one that is not finite never is."""
        return value is not None and (value < self.bound if self.better == "lower" else value > self.bound)

    def loss(self, value: float) -> float:
        """A value as what is better where it is lower."""
        return value if self.better == "lower" else -value


def parse_goal(text: str) -> Goal:
    """error<10 (percent of the held-out images), loss<0.5, or NAME<VALUE or NAME>VALUE of another score of the task.

    Raises:
        UsageError: anything else, or an error or a loss that is never or always passed.
    """
    match = _GOAL.fullmatch(text.strip())
    if match is None or not math.isfinite(float(match[3])):
        raise _refused(text, "loss<VALUE above 0, or NAME<VALUE or NAME>VALUE with another score of the task")
    measure, bound = match[1], float(match[3])
    if measure in _ENTRIES and (match[2] == ">" or bound <= 0 or (measure == "error" and bound > 100)):
        raise _refused(text, "or loss<VALUE above 0")
    return Goal(measure, bound, "lower" if match[2] == "<" else "higher")


def _refused(text: str, others: str) -> UsageError:
    return UsageError(f"--goal={text!r}: must be error<PERCENT with 0 < PERCENT <= 100, {others}; write 'error<10'")


def evaluations_of(run: Path, goal: Goal) -> list[dict[str, Any]]:
    """The lines of a run's evaluations.jsonl with a step and the goal's measure; no damaged ones."""
    lines = read_lines(run / "evaluations.jsonl")
    return [line for line in lines if is_number(line.get("step")) and goal.is_in(line)]


@dataclass(frozen=True)
class Trial:
    """One trial of one minibatch.

    Args:
        minibatch: kn, images.
        number: in the search, from 0.
        settings: the searched entries by name.
        border: names of the settings that lie on the border of the search space.
        status: done, diverged, failed or missing.
        evaluations: from ``evaluations_of``.
        folder: relative to the study.
    """

    minibatch: int
    number: int
    settings: Mapping[str, float]
    border: tuple[str, ...]
    status: str
    evaluations: Sequence[Mapping[str, Any]]
    folder: str

    def reached(self, goal: Goal) -> tuple[int, int] | None:
        """(steps to the goal, step of the evaluation before), None where it was not reached."""
        last = 0
        for line in self.evaluations:
            if goal.meets(goal.value(line)):
                return int(line["step"]), last
            last = int(line["step"])
        return None

    def best_value(self, goal: Goal) -> float | None:
        """The best value of the goal's measure over all evaluations."""
        values = (value for line in self.evaluations if (value := goal.value(line)) is not None)
        return min(values, key=goal.loss, default=None)


@dataclass(frozen=True)
class Reached:
    """What the search found at one minibatch.

    Args:
        minibatch: kn, images.
        steps: S(kn); None where no trial reached the goal.
        steps_before: the evaluation before it, still short of the goal.
        steps_by_half: expected S from half of the trials, drawn without replacement; one that did not reach the goal
            counts with its whole budget.
        budget_steps: the most that a trial was given.
        interval_steps: between evaluations.
        best: the trial that needed fewest steps, or came nearest; None where none left an evaluation.
        best_value: the best value of the goal's measure over all trials.
        trials, reached, diverged, failed: counts.
        goals: (steps, steps_before) of every trial that reached it, rising.
    """

    minibatch: int
    steps: int | None
    steps_before: int | None
    steps_by_half: float | None
    budget_steps: int
    interval_steps: int
    best: Trial | None
    best_value: float | None
    trials: int
    reached: int
    diverged: int
    failed: int
    goals: tuple[tuple[int, int], ...]


def summarize(trials: Sequence[Trial], goal: Goal, budget_steps: int, interval_steps: int) -> Reached:
    """The steps to the goal over all trials of one minibatch; of equal ones the first counts.

    Args:
        trials: at least one, of one minibatch.
        goal: what to reach.
        budget_steps: of every trial.
        interval_steps: between evaluations.
    """
    goals = {trial.number: reached for trial in trials if (reached := trial.reached(goal)) is not None}
    seen = [(value, trial.number) for trial in trials if (value := trial.best_value(goal)) is not None]
    best_value, closest = min(seen, key=lambda pair: (goal.loss(pair[0]), pair[1]), default=(None, None))
    first = min(goals, key=lambda number: (goals[number][0], number), default=None)
    nearest = first if first is not None else closest
    counted = [goals[trial.number][0] if trial.number in goals else budget_steps for trial in trials]
    return Reached(
        trials[0].minibatch,
        None if first is None else goals[first][0],
        None if first is None else goals[first][1],
        expected_least(counted, max(len(counted) // 2, 1)) if goals else None,
        budget_steps,
        interval_steps,
        next((trial for trial in trials if trial.number == nearest), None),
        best_value,
        len(trials),
        len(goals),
        sum(trial.status == "diverged" for trial in trials),
        sum(trial.status in ("failed", "missing") for trial in trials),
        tuple(sorted(goals.values())),
    )


def expected_least(values: Sequence[float], drawn: int) -> float:
    """E[min of m of T values, drawn without replacement] = sum_i v_(i) C(T - i, m - 1) / C(T, m), v_(1) <= v_(2) ..."""
    total = len(values)
    ways = [math.comb(total - i, drawn - 1) for i in range(1, total + 1)]
    return sum(value * way for value, way in zip(sorted(values), ways, strict=True)) / math.comb(total, drawn)
