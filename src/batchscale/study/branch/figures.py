"""Figures and tables of branches: differences against the factor, critical minibatches against examples seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscale.records.findings import Axis, Figure, Mark, Series, Table
from batchscale.study.branch.answer import Answer
from batchscale.study.branch.cells import BRANCH
from batchscale.study.branch.paired import Difference, Interval
from batchscale.study.branch.question import Question
from batchscale.study.branch.verdicts import Critical, Verdicts
from batchscale.study.branch.words import half_text, no_loss_text
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Differences to factor 1, the critical minibatches, and the differences along the window."""
    if not answer.criticals:
        return ()
    rules = len(case.question.rules_of(case.recipe)) > 1
    return (
        _against_factor(case, answer, rules),
        _against_examples(answer, rules),
        *_along_window(answer),
    )


def _name(critical: Critical, rules: bool) -> str:
    return f"after {critical.seen:,} images{f', rule {critical.rule}' if rules else ''}"


def _percent(value: float | None, verdicts: Verdicts) -> float | None:
    """A difference in percent of factor 1's loss; None where it is not finite."""
    if value is None or not math.isfinite(value) or not verdicts.reference:
        return None
    return 100 * value / abs(verdicts.reference)


def _against_factor(case: Case[Question], answer: Answer, rules: bool) -> Figure:
    kn, tolerance = answer.window.minibatch, case.question.tolerance
    series = []
    for critical in answer.criticals:
        each = critical.whole.differences
        low, high = ([_end(d, place, critical.whole) for d in each] for place in (0, 1))
        whiskers = any(value is not None for value in low)
        series.append(
            Series(
                name=_name(critical, rules),
                x=(kn, *(d.factor * kn for d in each)),
                y=(0.0, *(_percent(d.mean, critical.whole) for d in each)),
                low=(0.0, *low) if whiskers else (),
                high=(0.0, *high) if whiskers else (),
                runs=tuple(_run(answer, critical, factor) for factor in (1, *(d.factor for d in each))),
            )
        )
    return Figure(
        id="difference-minibatch",
        title="Loss of branches against their minibatch",
        caption="Mean difference to the branch of factor 1 with the same seed and the same images; whiskers: 90 %, "
        "Student's t over the seeds. Below zero: the trunk's lr is too high for its minibatch.",
        x=Axis(label="minibatch kn (images)", scale="log2"),
        y=Axis(label="difference to factor 1 (% of its loss)"),
        series=tuple(series),
        marks=(Mark(label=f"tolerance, {tolerance:g} %", y=tolerance),),
    )


def _run(answer: Answer, critical: Critical, factor: int) -> str:
    branches = answer.curves.get((BRANCH, critical.step, critical.rule, factor, 1.0), {})
    return next((curve.folder for curve in branches.values()), "")


def _end(difference: Difference, place: int, verdicts: Verdicts) -> float | None:
    interval: Interval | None = difference.interval
    return None if interval is None else _percent(interval[place], verdicts)


def _against_examples(answer: Answer, rules: bool) -> Figure:
    kn, series = answer.window.minibatch, []
    for rule in dict.fromkeys(critical.rule for critical in answer.criticals):
        each = [critical for critical in answer.criticals if critical.rule == rule]
        behind = f", rule {rule}" if rules else ""
        seen = tuple(float(critical.seen) for critical in each)
        largest = [critical.whole.no_loss.largest for critical in each]
        worse = [critical.whole.no_loss.worse or factor for critical, factor in zip(each, largest, strict=True)]
        halves = [critical.whole.half for critical in each]
        lows = [half.interval[0] if half.interval else half.factor for half in halves]
        highs = [half.interval[1] if half.interval else half.factor for half in halves]
        for name, middle, low, high in (
            (f"largest without loss{behind}", largest, largest, worse),
            (f"half efficiency{behind}", [half.factor for half in halves], lows, highs),
        ):
            series.append(Series(name=name, x=seen, y=_times(middle, kn), low=_times(low, kn), high=_times(high, kn)))
    return Figure(
        id="critical-minibatch",
        title="Critical minibatch against images seen",
        caption="Largest without loss: from the largest that passed to the smallest that is shown to be worse. Half "
        "efficiency: 90 % over the seeds. A gap: it lies beyond the factors tried, or there are too few seeds.",
        x=Axis(label="images seen by the trunk", scale="log2"),
        y=Axis(label="minibatch (images)", scale="log2"),
        series=tuple(series),
    )


def _times(factors: Sequence[float | None], kn: int) -> tuple[float | None, ...]:
    return tuple(None if factor is None else factor * kn for factor in factors)


def _along_window(answer: Answer) -> tuple[Figure, ...]:
    """The mean losses of the branches on the way, a figure a checkpoint, of the first rule."""
    drawn = []
    for critical in [each for each in answer.criticals if each.rule == answer.criticals[0].rule]:
        series = []
        for factor in answer.window.factors:
            branches = answer.curves.get((BRANCH, critical.step, critical.rule, factor, 1.0), {}).values()
            points = [point for point in answer.window.points if all(curve.at(point) is not None for curve in branches)]
            means = [sum(curve.at(point) or 0.0 for curve in branches) / max(len(branches), 1) for point in points]
            if points:
                series.append(
                    Series(
                        name=f"kn = {factor * answer.window.minibatch:,}",
                        x=tuple(map(float, points)),
                        y=tuple(mean if math.isfinite(mean) else None for mean in means),
                        style="reference" if factor == 1 else "line",
                    )
                )
        drawn.append(
            Figure(
                id=f"window-{critical.step}",
                title=f"Loss of the branches after {critical.step:,} steps",
                caption=f"Rule {critical.rule}, means over the seeds, averaged weights. Where the lines still cross, "
                "the window is too short.",
                x=Axis(label="images since the branch began"),
                y=Axis(label="loss"),
                series=tuple(series),
            )
        )
    return tuple(drawn)


def tables(case: Case[Question], answer: Answer) -> tuple[Table, ...]:
    """The answers, every factor's difference, the controls, the trunks."""
    if not answer.criticals:
        return ()
    return (
        _critical_table(answer),
        _difference_table(answer),
        *([_control_table(case, answer)] if any(each.controls for each in answer.criticals) else []),
        *([_trunk_table(case, answer)] if len(answer.trunks) > 1 else []),
    )


def _critical_table(answer: Answer) -> Table:
    cost = answer.cost
    rows = tuple(
        (
            each.step, each.seen, each.rule, no_loss_text(each, answer.window), half_text(each, answer.window),
            "yes" if each.settled else "no",
        )
        for each in answer.criticals
    )  # fmt: skip
    return Table(
        title="Critical minibatches",
        columns=("step", "images seen", "rule", "largest without loss", "half efficiency (90 %)", "settled"),
        rows=rows,
        caption=f"Settled: the largest without loss is the same at half of the window. Images trained on: trunk "
        f"{cost.trunk:,}, branches {cost.branches:,}, beyond the window {cost.longer:,}, controls {cost.controls:,}; "
        f"together {cost.total:,}. A full sweep, every factor with every seed from its first step: {cost.sweep:,}.",
    )


def _difference_table(answer: Answer) -> Table:
    kn, rows = answer.window.minibatch, []
    for critical in answer.criticals:
        earlier = {d.factor: d for d in critical.earlier.differences} if critical.earlier else {}
        for each in critical.whole.differences:
            half = earlier.get(each.factor)
            rows.append(
                (
                    critical.step, critical.rule, each.factor * kn, _number(half.mean if half else None),
                    _number(each.mean), _interval_text(each), critical.whole.no_loss.verdicts[each.factor],
                    len(each.by_seed),
                )
            )  # fmt: skip
    tolerances = ", ".join(f"{each.whole.tolerance:.3g}" for each in answer.criticals)
    return Table(
        title="Differences to factor 1",
        columns=("step", "rule", "kn", "at half of the window", "at its end", "90 %", "verdict", "seeds"),
        rows=tuple(rows),
        caption=f"Loss of the branch minus that of factor 1, by seeds. Tolerance: {tolerances}.",
    )


def _control_table(case: Case[Question], answer: Answer) -> Table:
    first = [each for each in answer.criticals if each.rule == answer.criticals[0].rule]
    rows = tuple(
        (critical.step, lr, _number(each.mean), _interval_text(each))
        for critical in first
        for lr, each in critical.controls.items()
    )
    return Table(
        title="Factor 1 under another lr",
        columns=("step", "times the lr", "difference to factor 1", "90 %"),
        rows=rows,
        caption="Below zero: factor 1 itself would gain by this lr, so what larger factors gain is the lr's.",
    )


def _trunk_table(case: Case[Question], answer: Answer) -> Table:
    rows = tuple(
        (lr, *(_number(loss) for loss in losses), "yes" if lr == answer.trunk_lr else "no")
        for lr, losses in answer.trunks.items()
    )
    steps = tuple(f"loss after {step:,} steps" for step in case.question.at)
    return Table(title="The trunk at each lr", columns=("times the lr", *steps, "branched"), rows=rows)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _interval_text(difference: Difference) -> str | None:
    ends = difference.interval
    return None if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
