"""Trials of one minibatch -> the steps to the goal: the first evaluation below it over all trials.

S(B) = min over trials of the first step s with an evaluation below the goal

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

_GOAL = re.compile(r"(error|loss)\s*<\s*(\d+\.?\d*|\.\d+)\s*%?", re.ASCII)
_ENTRIES = {"error": "error_percent", "loss": "loss"}


@dataclass(frozen=True)
class Goal:
    """A bound that the held-out error (percent) or loss must fall below."""

    measure: Literal["error", "loss"]
    below: float

    @property
    def entry(self) -> str:
        """Its name in evaluations.jsonl and in execution.stop_below."""
        return _ENTRIES[self.measure]

    @property
    def words(self) -> str:
        """As on the command line."""
        return f"{self.measure}<{self.below:g}"

    @property
    def text(self) -> str:
        """As in a sentence."""
        return f"{self.measure} below {self.below:g}{' %' if self.measure == 'error' else ''}"

    def value_text(self, value: float) -> str:
        """A value of the measure, with its unit."""
        return f"{value:.2f} %" if self.measure == "error" else f"{value:.4g}"


def parse_goal(text: str) -> Goal:
    """error<10 (percent of the held-out images) or loss<0.5.

    Raises:
        UsageError: anything else, or a bound that is never or always passed.
    """
    match = _GOAL.fullmatch(text.strip())
    bound = float(match[2]) if match else 0.0
    if match is None or bound == 0 or (match[1] == "error" and bound > 100):
        raise UsageError(
            f"--goal={text!r}: must be error<PERCENT with 0 < PERCENT <= 100, or loss<VALUE above 0; write 'error<10'"
        )
    return Goal("error" if match[1] == "error" else "loss", bound)


def evaluations_of(run: Path, goal: Goal) -> list[dict[str, Any]]:
    """The lines of a run's evaluations.jsonl with a step and the goal's entry (null: not finite); no damaged ones."""
    lines = read_lines(run / "evaluations.jsonl")
    return [line for line in lines if is_number(line.get("step")) and _is_value(line.get(goal.entry, ""))]


def _is_value(value: object) -> bool:
    return value is None or is_number(value)


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
            if _below(line[goal.entry], goal.below):
                return int(line["step"]), last
            last = int(line["step"])
        return None

    def best_value(self, goal: Goal) -> float | None:
        """The lowest value of the goal's measure over all evaluations."""
        return min((line[goal.entry] for line in self.evaluations if line[goal.entry] is not None), default=None)


def _below(value: float | None, bound: float) -> bool:
    return value is not None and value < bound  # a loss that is not finite is null in the lines


@dataclass(frozen=True)
class Reached:
    """What the search found at one minibatch.

    Args:
        minibatch: kn, images.
        steps: S(kn); None where no trial reached the goal.
        steps_before: the evaluation before it, still above the goal.
        steps_by_half: expected S from half of the trials, drawn without replacement; one that did not reach the goal
            counts with its whole budget.
        budget_steps: the most that a trial was given.
        interval_steps: between evaluations.
        best: the trial that needed fewest steps, or came nearest; None where none left an evaluation.
        best_value: the lowest value of the goal's measure over all trials.
        trials, reached, diverged, failed: counts.
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
    first = min(goals, key=lambda number: (goals[number][0], number), default=None)
    nearest = first if first is not None else min(seen)[1] if seen else None
    counted = [goals[trial.number][0] if trial.number in goals else budget_steps for trial in trials]
    return Reached(
        trials[0].minibatch,
        None if first is None else goals[first][0],
        None if first is None else goals[first][1],
        expected_least(counted, max(len(counted) // 2, 1)) if goals else None,
        budget_steps,
        interval_steps,
        next((trial for trial in trials if trial.number == nearest), None),
        min(seen)[0] if seen else None,
        len(trials),
        len(goals),
        sum(trial.status == "diverged" for trial in trials),
        sum(trial.status in ("failed", "missing") for trial in trials),
    )


def expected_least(values: Sequence[float], drawn: int) -> float:
    """E[min of m of T values, drawn without replacement] = sum_i v_(i) C(T - i, m - 1) / C(T, m), v_(1) <= v_(2) ..."""
    total = len(values)
    ways = [math.comb(total - i, drawn - 1) for i in range(1, total + 1)]
    return sum(value * way for value, way in zip(sorted(values), ways, strict=True)) / math.comb(total, drawn)
