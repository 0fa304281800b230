"""Data to a goal by published tables: workloads as fitted by `plan epochs --out`, shipped and one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from batchscale.cost.planning.goal import CriticalEstimate, EpochGoal
from batchscale.cost.planning.question import Trained
from batchscale.errors import DataError
from batchscale.words import shown

_ALIKE = {
    ("imagenet", "resnet50"): "resnet",
    ("coco", "maskrcnn_resnet50_fpn"): "maskrcnn",
}
"""(data set, net) -> the workload that trains the same net on the same data, if by another optimizer."""


@dataclass(frozen=True)
class PublishedWorkload:
    """E(B) of one workload.

    Args:
        benchmark: its name.
        source: of the table.
        unit: of the data, such as "epochs" or "samples".
        smallest, largest: minibatches studied.
        middle: their geometric mean, where the fit is surest.
        needed: E there, in the unit.
        spread: of log E of a new point, a standard deviation.
        critical: B_crit.
        low, high: its interval; None: no bound.
        level: of the interval.
    """

    benchmark: str
    source: str
    unit: str
    smallest: float
    largest: float
    middle: float
    needed: float
    spread: float
    critical: float
    low: float | None
    high: float | None
    level: float

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def critical_estimate(self) -> CriticalEstimate:
        """B_crit."""
        words = f"{self.benchmark} of {self.source}" if self.source else self.benchmark
        return CriticalEstimate(self.critical, self.low, self.high, words, self.level)

    def goal(self, trained: Trained) -> EpochGoal:
        """The workload's own goal, in epochs of the recipe's data.

        Raises:
            DataError: a unit that is neither epochs, nor examples, nor their parts.
        """
        return EpochGoal(
            f"the goal of {self.benchmark}",
            self.middle,
            self.needed / self._units_an_epoch(trained),
            self.spread,
            self.critical_estimate(),
            (self.smallest, self.largest),
            self.benchmark,
        )

    def _units_an_epoch(self, trained: Trained) -> float:
        word, each = trained.parts
        if self.unit in {"", "epochs"}:
            return 1
        if self.unit in {"samples", "examples", trained.examples}:
            return trained.epoch_examples
        if word and self.unit == word:
            return trained.epoch_examples * each
        raise DataError(
            f"--goal: {shown(self.benchmark)}: its unit is {shown(self.unit)}; convert it to epochs, or to "
            f"{trained.examples}"
        )


WORKLOAD_ENTRIES = tuple(field.name for field in fields(PublishedWorkload))
"""Of a workload in `plan epochs --out`."""


@cache
def shipped_workloads() -> Mapping[str, PublishedWorkload]:
    """By their names (published.json)."""
    text = resources.files("batchscale.cost.goal").joinpath("published.json").read_text(encoding="utf-8")
    return {entry["benchmark"]: PublishedWorkload(**entry) for entry in json.loads(text)}


def workload_like(data: str, net: str) -> PublishedWorkload | None:
    """The shipped workload of the same net and data; None where there is none.

    Args:
        data: name of the data set.
        net: name of the net; a library's stands before a slash.
    """
    name = _ALIKE.get((data, net.rpartition("/")[2]))
    return None if name is None else shipped_workloads()[name]
