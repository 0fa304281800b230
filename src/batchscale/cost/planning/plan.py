"""A plan: the rows, both scalings, the advice, and what makes them doubtful."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from batchscale.cost.planning.advice import Advice, advise
from batchscale.cost.planning.pace import Pace
from batchscale.cost.planning.question import PlanQuestion
from batchscale.cost.planning.rows import BestChoices, BestSteps, PlanRow, Scalings, best_choices, row_of, scalings
from batchscale.errors import UsageError
from batchscale.words import counted, rounded

FARTHEST_DOUBLINGS = 5
"""Of the hosts beyond the last measured point: the tables behind the priors reach no farther."""
_HALVED = 0.5
MOST_GAIN = 1.25
"""Of the speed a device from one measured point to the next, at equal examples: caches bring a tenth at the most."""
_FAR_MINIBATCH = 2.0
"""Times the largest minibatch studied: beyond it B_crit says what nobody has seen."""


@dataclass(frozen=True)
class Plan:
    """All that a plan says.

    Args:
        question: what was asked.
        rows: one a device count that can be used, rising.
        scalings: strong and weak, side by side.
        advice: what to do.
        warnings: one line each.
        left_out: device counts without a row, and why, one line a reason.
    """

    question: PlanQuestion
    rows: tuple[PlanRow, ...]
    scalings: Scalings
    advice: Advice
    warnings: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def make_plan(question: PlanQuestion, doubts: tuple[str, ...] = ()) -> Plan:
    """Plan.

    Args:
        question: what is asked.
        doubts: warnings of whoever asks, which stand first.

    Raises:
        UsageError: no device count can be used, or none keeps to the bounds.
    """
    steps = BestSteps(question)
    choices = best_choices(question, steps)
    if not choices.chosen:
        raise UsageError(_endless(question, steps, choices) or _none(question))
    rows = tuple(row_of(question, steps, choice) for choice in choices.chosen)
    advice = advise(rows, question.bounds)
    left_out = tuple(_left_out(question, choices))
    warnings = (*doubts, *_of_goal(question, rows, left_out), *_of_sizes(question, rows), *_of_pace(question))
    return Plan(question, rows, scalings(question, steps), advice, warnings, left_out)


def _none(question: PlanQuestion) -> str:
    trained, fewest = question.trained, question.devices[0]
    if question.goal.critical is None and fewest > trained.workers:
        return (
            f"--devices={fewest}: {trained.recipe} has {counted(trained.workers, 'worker')}, one a device at the most, "
            f"and nothing is known of the epochs of larger minibatches; give fewer devices, or --critical B"
        )
    return (
        f"--devices={fewest}: one worker of {trained.per_worker} {trained.examples} a device is a minibatch of more "
        f"than the {trained.epoch_examples:,} training {trained.examples}; give fewer devices"
    )


def _endless(question: PlanQuestion, steps: BestSteps, choices: BestChoices) -> str:
    """That every count fails so often that no run ends; "" where that is not why there is no row."""
    if not choices.endless or steps.risks is None or question.risks is None:
        return ""
    fewest = choices.endless[0]
    seconds = float(steps.risks.between_seconds[question.devices.index(fewest)])
    return (
        f"--devices={fewest}: with device_mtbf_hours={question.risks.device_mtbf_hours:g} one of them fails every "
        f"{seconds:.2g} s, so no run ends; give fewer devices, or correct the cluster's file"
    )


def _left_out(question: PlanQuestion, choices: BestChoices) -> Iterator[str]:
    """Which counts have no row, and why."""
    none = "no minibatch has known epochs" if question.goal.critical is None else "a minibatch is larger than the data"
    for counts, why in ((choices.without, none), (choices.endless, "failures come too often for a run to end")):
        if counts:
            devices = " and ".join(filter(None, (", ".join(f"{count:,}" for count in counts[:-1]), f"{counts[-1]:,}")))
            yield f"left out: {devices} devices, for which {why}"


def _of_goal(question: PlanQuestion, rows: tuple[PlanRow, ...], left_out: tuple[str, ...]) -> Iterator[str]:
    goal, trained = question.goal, question.trained
    if goal.critical is None:
        yield (
            f"nothing is known of the epochs at other minibatches than {goal.minibatch:,.0f}, so the plan keeps to it; "
            f"give --goal or --critical (a study, a measure, a table, or a number)"
        )
    yield from left_out
    beyond = [row for row in rows if goal.studied and row.choice.minibatch > _FAR_MINIBATCH * goal.studied[1]]
    if beyond and goal.studied:
        yield (
            f"from {beyond[0].choice.devices:,} devices on the minibatch ({beyond[0].choice.minibatch:,}) lies more "
            f"than {_FAR_MINIBATCH:g} times above the largest studied ({goal.studied[1]:,.0f}): its epochs are an "
            f"extrapolation"
        )
    recommended_growth = [row for row in rows if row.choice.minibatch > trained.minibatch]
    if recommended_growth:
        yield (
            f"minibatches above the recipe's {trained.minibatch:,} follow its scaling rule; whether they reach the "
            f"goal at all, a run must show"
        )


def _of_sizes(question: PlanQuestion, rows: tuple[PlanRow, ...]) -> Iterator[str]:
    trained = question.trained
    anew = [row for row in rows if row.choice.per_worker != trained.per_worker]
    if anew:
        yield (
            f"from {anew[0].choice.devices:,} devices on a worker has another number of {trained.examples} than the "
            f"recipe's {trained.per_worker}: where the net has batch norm, its statistics, and so the loss, are others"
        )


def _of_pace(question: PlanQuestion) -> Iterator[str]:
    pace, largest = question.pace, question.devices[-1]
    if not pace.measured:
        yield (
            "no measured point: step times are physics alone, from the cluster file's numbers; give --from with runs, "
            "a study, a benchmark or a table"
        )
        return
    yield from _of_points(pace)
    last = pace.points[-1].devices
    doublings = math.log2(max(largest / pace.devices_per_host, 1) / max(last / pace.devices_per_host, 1))
    if doublings > FARTHEST_DOUBLINGS:
        yield (
            f"{largest:,} devices are {doublings:.1f} doublings beyond the last measured point ({last:,}), farther "
            f"than any table behind the priors: the interval is wide, and may still be too narrow"
        )


def _of_points(pace: Pace) -> Iterator[str]:
    """Those that cannot be right beside the others, or at all."""
    for earlier, point in itertools.pairwise(pace.points):
        if point.examples_per_second / point.devices <= _HALVED * earlier.examples_per_second / earlier.devices:
            yield (
                f"{point.place}: at {point.devices:,} devices the speed a device is half of that at "
                f"{earlier.devices:,}, or less: an outlier, used as if it were none; measure it again"
            )
    for (earlier, before), (point, after) in itertools.pairwise(zip(pace.points, pace.levelled, strict=True)):
        gain = math.exp(before - after)
        if gain > MOST_GAIN:
            yield (
                f"{point.place}: at {point.devices:,} devices the speed a device is {gain:.3g} times that at "
                f"{earlier.devices:,}, and more devices make none faster: an outlier, used as if it were none; measure "
                f"both again"
            )
    for point in pace.points:
        percent = pace.physics.load(max(round(point.per_device), 1)).peak_percent(point.seconds)
        if percent is not None and percent > 100:
            yield (
                f"{point.place}: {rounded(point.examples_per_second)} a second are {percent:,.0f} % of the peak of "
                f"{counted(point.devices, 'device', ',')}: faster than they can be; correct the point, or the peak"
            )
