"""What a run chooses when it begins and keeps: recorded in environment.json, taken again at a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Decided:
    """The choices of one attempt.

    Attributes:
        micro_batch: examples of one pass.
        threads: of this process.
        algorithm: the all-reduce, how it was chosen and why, as ``build.algorithm.decide`` records it.
        cores_per_thread: by the trial of threads; None where there was none.
        largest_that_fits: examples of the largest pass that fits into every process's memory, where the trial of the
            micro-batch met that limit; else None.
        lanes: whether each worker of a group of several has a pass of its own; None where workers are no groups.
        compile_seconds: that compiling (or capturing) this process's passes took, before the first step; None where
            they are neither.
        data_on_device: whether the training examples are kept on the device, their bytes, and the limit; None on the
            CPU.
    """

    micro_batch: int
    threads: int
    algorithm: Mapping[str, Any]
    cores_per_thread: int | None = None
    largest_that_fits: int | None = None
    lanes: bool | None = None
    compile_seconds: float | None = None
    data_on_device: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For environment.json."""
        trials: dict[str, Any] = {
            "cores_per_thread": self.cores_per_thread,
            "largest_that_fits": self.largest_that_fits,
        }
        trials |= {"lanes": self.lanes, "compile_seconds": self.compile_seconds, "data_on_device": self.data_on_device}
        outcomes = {name: outcome for name, outcome in trials.items() if outcome is not None}
        return {"micro_batch": self.micro_batch, "threads": self.threads, **outcomes, "algorithm": self.algorithm}


@dataclass(frozen=True)
class DecidedEarlier:
    """What holds on from earlier attempts of a run; None and () where a new attempt is free to choose.

    Attributes:
        micro_batch: as the checkpoint has it.
        cores_per_thread: of the newest attempt that tried.
        algorithms: what every attempt recorded of its all-reduce, the newest first.
        knows_lanes: the newest attempt says whether its workers had passes of their own; those of earlier versions do
            not. True where there is none.
    """

    micro_batch: int | None = None
    cores_per_thread: int | None = None
    algorithms: tuple[Mapping[str, Any], ...] = ()
    knows_lanes: bool = True

    @classmethod
    def of(cls, attempts: Sequence[Mapping[str, Any]], micro_batch: int | None) -> Self:
        """From what environment.json holds under ``decided``, the newest attempt first."""
        algorithms = tuple(record["algorithm"] for record in attempts if isinstance(record.get("algorithm"), dict))
        tried = (record["cores_per_thread"] for record in attempts if "cores_per_thread" in record)
        return cls(micro_batch, next(tried, None), algorithms, not attempts or "lanes" in attempts[0])
