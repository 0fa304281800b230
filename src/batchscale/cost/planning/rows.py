"""One row a number of devices: of all minibatches and algorithms those that reach the goal soonest.

hours(d) = min over k, a of  E(kn) N / (kn)  T(d, k n / d, a) / 3600

n stays the recipe's, for it is part of what is learned (batch norm's statistics, noise), unless others are allowed. k
is the recipe's, or what makes the recipe's minibatch of another n, shared by d devices; or one, two, four, ... workers
a device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batchscale.cost.planning.estimate import Estimate, estimates
from batchscale.cost.planning.pace import DeviceLoad
from batchscale.cost.planning.question import PlanQuestion, Trained
from batchscale.cost.planning.risks import stretched
from batchscale.cost.speeds.series import Floats

_MOST_WORKERS_A_DEVICE = 64


@dataclass(frozen=True)
class PlanChoice:
    """A way to train on so many devices.

    Args:
        devices: d.
        workers: k.
        per_worker: n.
        algorithm: of the all-reduce.
        log_seconds: of a step.
    """

    devices: int
    workers: int
    per_worker: int
    algorithm: str
    log_seconds: float

    @property
    def minibatch(self) -> int:
        """kn."""
        return self.workers * self.per_worker

    @property
    def per_device(self) -> int:
        """Examples of the device that has most."""
        return math.ceil(self.workers / self.devices) * self.per_worker


@dataclass(frozen=True)
class PlanRow:
    """A choice with what comes of it.

    Args:
        choice: the way.
        seconds: of a step.
        examples_per_second: all devices together.
        efficiency: T(d0) / T(d) at equal examples a device, d0 the fewest devices of the plan.
        epochs: to the goal.
        hours: to the goal.
        device_hours: of all devices.
        cost: None: no price is known.
        load: what a device holds and does.
        failures: hours between two, seconds of work between checkpoints, percent of the time lost to both; None: not
            known.
    """

    choice: PlanChoice
    seconds: Estimate
    examples_per_second: Estimate
    efficiency: Estimate
    epochs: Estimate
    hours: Estimate
    device_hours: Estimate
    cost: Estimate | None
    load: DeviceLoad
    failures: dict[str, float] | None = None


class BestSteps:
    """The best algorithm and its step at every number of examples a device, computed once each.

    Args:
        question: of the plan.
    """

    def __init__(self, question: PlanQuestion) -> None:
        self._question = question
        self._devices: Floats = np.array(question.devices, dtype=float)
        self._best: dict[int, tuple[Sequence[str], Floats]] = {}
        self.risks = None if question.risks is None else question.risks.at(self._devices)
        self._middle = question.pace.middle(self._devices)
        self._corrections: dict[int, Floats] = {}

    def best(self, per_device: int) -> tuple[Sequence[str], Floats]:
        """Algorithm and log seconds at each device count."""
        if per_device not in self._best:
            self._best[per_device] = self._question.pace.physics.best(self._devices, per_device)
        return self._best[per_device]

    def draws(self, per_device: int) -> Floats:
        """log seconds of the best algorithm (D, m)."""
        if per_device not in self._corrections:
            self._corrections[per_device] = self._question.pace.corrections(self._devices, per_device)
        return np.asarray(self.best(per_device)[1] + self._corrections[per_device])

    def choice(self, place: int, workers: int, per_worker: int) -> PlanChoice:
        """k workers of n on the devices at a place of the plan."""
        devices = self._question.devices[place]
        names, logs = self.best(math.ceil(workers / devices) * per_worker)
        log_seconds = float(logs[place] + self._middle[place])
        return PlanChoice(devices, workers, per_worker, names[place], log_seconds)

    def first(self, per_device: int) -> float:
        """log seconds of the fewest devices."""
        return float(self.best(per_device)[1][0] + self._middle[0])


def choices_of(question: PlanQuestion, devices: int) -> Iterator[tuple[int, int]]:
    """(k, n) that may be trained with: of known epochs, at least one a device, no larger minibatch than the data."""
    trained = question.trained
    for per_worker in trained.sizes:
        doublings = range(_MOST_WORKERS_A_DEVICE.bit_length())
        tried = [trained.minibatch // per_worker, *(devices << doubled for doubled in doublings)]
        for workers in dict.fromkeys(tried):
            minibatch = workers * per_worker
            if workers >= devices and minibatch <= trained.epoch_examples and question.goal.knows(minibatch):
                yield workers, per_worker


def hours_of(question: PlanQuestion, steps: BestSteps, choice: PlanChoice) -> float:
    """To the goal, with what failures add."""
    updates = question.goal.epochs_at(choice.minibatch) * question.trained.epoch_examples / choice.minibatch
    hours = math.exp(choice.log_seconds) * updates / 3600
    return stretched(hours, steps.risks, question.devices.index(choice.devices))


@dataclass(frozen=True)
class BestChoices:
    """What each device count is best used for.

    Args:
        chosen: the best choice of a count, rising.
        without: counts for which there is no minibatch.
        endless: counts that fail so often that no run ends.
    """

    chosen: tuple[PlanChoice, ...]
    without: tuple[int, ...]
    endless: tuple[int, ...]


def best_choices(question: PlanQuestion, steps: BestSteps) -> BestChoices:
    """The best choice of each device count, and the counts that have none."""
    chosen: list[PlanChoice] = []
    without, endless = [], []
    for place, devices in enumerate(question.devices):
        choices = [steps.choice(place, *way) for way in choices_of(question, devices)]
        hours = [(_ended_hours(question, steps, choice), choice) for choice in choices]
        best = min(hours, key=lambda pair: pair[0], default=None)
        if best is None:
            without.append(devices)
        elif math.isfinite(best[0]):
            chosen.append(best[1])
        else:
            endless.append(devices)
    return BestChoices(tuple(chosen), tuple(without), tuple(endless))


def _ended_hours(question: PlanQuestion, steps: BestSteps, choice: PlanChoice) -> float:
    """To the goal; infinite where it is never reached."""
    return hours_of(question, steps, choice) if math.isfinite(choice.log_seconds) else math.inf


def row_of(question: PlanQuestion, steps: BestSteps, choice: PlanChoice) -> PlanRow:
    """What comes of a choice, with intervals from the draws that all rows share."""
    place = question.devices.index(choice.devices)
    drawn = steps.draws(choice.per_device)
    log_step, log_first = drawn[:, place], drawn[:, 0]
    log_epochs = question.goal.log_epochs(np.array([float(choice.minibatch)]))[:, 0]
    step, epochs_value = math.exp(choice.log_seconds), question.goal.epochs_at(choice.minibatch)
    hours_value = hours_of(question, steps, choice)
    seconds, speed, efficiency, epochs, hours = estimates(
        [step, choice.minibatch / step, math.exp(steps.first(choice.per_device)) / step, epochs_value, hours_value],
        np.stack([log_step, math.log(choice.minibatch) - log_step, log_first - log_step, log_epochs,
                  log_step + log_epochs + math.log(hours_value / (step * epochs_value))], axis=1),
    )  # fmt: skip
    device_hours = hours.times(choice.devices)
    cost = None if question.price is None else device_hours.times(question.price)
    load = question.pace.physics.load(choice.per_device)
    return PlanRow(choice, seconds, speed, efficiency, epochs, hours, device_hours, cost, load, _failures(steps, place))


def _failures(steps: BestSteps, place: int) -> dict[str, float] | None:
    if steps.risks is None:
        return None
    return {
        "between_hours": float(steps.risks.between_seconds[place]) / 3600,
        "checkpoint_seconds": float(steps.risks.interval_seconds[place]),
        "lost_percent": 100 * float(steps.risks.lost_share[place]),
    }


@dataclass(frozen=True)
class Scalings:
    """Strong and weak scaling from one start: the recipe's k on the fewest devices.

    Args:
        strong: the minibatch stays, and is shared by more devices; with fewer examples a worker where these may be.
        weak: workers a device stay, and k grows.
    """

    strong: tuple[PlanRow, ...]
    weak: tuple[PlanRow, ...]


def scalings(question: PlanQuestion, steps: BestSteps) -> Scalings:
    """Both, where the epochs of the minibatch are known."""
    workers, fewest = question.trained.workers, question.devices[0]
    a_device, per_worker = max(math.ceil(workers / fewest), 1), question.trained.per_worker
    strong = [
        steps.choice(place, *way) for place, d in enumerate(question.devices) for way in _sharing(question.trained, d)
    ]
    weak = [steps.choice(place, a_device * d, per_worker) for place, d in enumerate(question.devices)]
    known, most = question.goal.knows, question.trained.epoch_examples
    return Scalings(
        *(
            tuple(
                row_of(question, steps, choice)
                for choice in choices
                if choice.minibatch <= most
                and known(choice.minibatch)
                and math.isfinite(_ended_hours(question, steps, choice))
            )
            for choices in (strong, weak)
        )
    )


def _sharing(trained: Trained, devices: int) -> list[tuple[int, int]]:
    """(k, n) of the recipe's minibatch with a worker a device at least, of the largest n; [] where there is none."""
    ways = [(trained.minibatch // size, size) for size in trained.sizes if trained.minibatch % size == 0]
    return [way for way in ways if way[0] >= devices][:1]
