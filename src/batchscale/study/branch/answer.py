"""The critical minibatch after every checkpoint, in numbers, and what it has cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscale.study.branch.cells import BRANCH, CONTROL, LONGER, TRUNK, best_trunk, trunk_loss
from batchscale.study.branch.curve import BranchCurve, evaluated
from batchscale.study.branch.paired import Difference
from batchscale.study.branch.question import Question
from batchscale.study.branch.verdicts import Critical, Place, critical_of
from batchscale.study.branch.window import Window
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome


@dataclass(frozen=True)
class ExamplesSpent:
    """What the study has trained, and what a full sweep would have, in examples.

    Attributes:
        trunk, branches, longer, controls: of the study.
        sweep: every factor and rule from its first step on with every seed, to the end of the last window.
    """

    trunk: int
    branches: int
    longer: int
    controls: int
    sweep: int

    @property
    def total(self) -> int:
        """Of the study."""
        return self.trunk + self.branches + self.longer + self.controls


@dataclass(frozen=True)
class Answer:
    """What the branches say.

    Attributes:
        window: of all.
        criticals: one a checkpoint and rule; none where the trunk did not come so far.
        curves: place -> seed -> branch.
        trunks: factor on the lr -> its losses at the checkpoints.
        trunk_lr: factor on the lr of the trunk that was branched; None of a run that was there.
        cost: in examples.
    """

    window: Window
    criticals: tuple[Critical, ...]
    curves: Mapping[Place, Mapping[int, BranchCurve]]
    trunks: Mapping[float, tuple[float, ...]]
    trunk_lr: float | None
    cost: ExamplesSpent


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The answer after every checkpoint, by every rule."""
    question, window = case.question, case.question.window_of(case.recipe)
    best = best_trunk(case, outcomes)
    starts = {} if best is None else {step: trunk_loss(best, step) for step in question.at}
    curves = _curves(outcomes, window, starts)
    criticals = tuple(
        critical_of(curves, window, step, rule, question.tolerance)
        for rule in question.rules_of(case.recipe)
        for step in question.at
        if (BRANCH, step, rule, 1, 1.0) in curves
    )
    trunks = {
        each.cell.labels["lr_factor"]: tuple(trunk_loss(each, step) for step in question.at)
        for each in outcomes
        if each.cell.labels["part"] == TRUNK
    }
    chosen = None if best is None else float(best.cell.labels["lr_factor"])
    return Answer(window, criticals, curves, trunks, chosen, _cost(case, window, outcomes))


def _curves(
    outcomes: Sequence[Outcome], window: Window, starts: Mapping[int, float]
) -> dict[Place, dict[int, BranchCurve]]:
    """Every branch, with what the run that goes on with it has added, and with the trunk's loss where it begins."""
    further = {_branch(each): each for each in outcomes if each.cell.labels["part"] == LONGER}
    curves: dict[Place, dict[int, BranchCurve]] = {}
    for outcome in outcomes:
        labels, trunk = outcome.cell.labels, outcome.cell.trunk
        if labels["part"] not in (BRANCH, CONTROL) or trunk is None:
            continue
        more = further.get(_branch(outcome)) if labels["part"] == BRANCH else None
        lines = evaluated(outcome.folder) | ({} if more is None else evaluated(more.folder))
        kn = outcome.cell.minibatch_images
        losses = {(step - trunk.step) * kn: loss for step, (loss, _) in lines.items()}
        start = {0: starts[trunk.step]} if trunk.step in starts else {}
        end = trunk.step + window.examples // kn
        place = (labels["part"], labels["step"], labels["rule"], labels["factor"], labels["lr_factor"])
        curves.setdefault(place, {})[labels["seed"]] = BranchCurve(
            outcome.status,
            f"runs/{outcome.folder.name}",
            start | losses,
            lines[end][1] if end in lines else (),
            more is not None and more.status in ("done", "diverged"),
        )
    return curves


def _branch(outcome: Outcome) -> tuple[Any, ...]:
    """What tells a branch from the others."""
    return tuple(outcome.cell.labels[name] for name in ("step", "rule", "factor", "seed"))


def _cost(case: Case[Question], window: Window, outcomes: Sequence[Outcome]) -> ExamplesSpent:
    """Every run counts once, whatever asks for it."""
    sums = dict.fromkeys((TRUNK, BRANCH, LONGER, CONTROL), 0)
    for key in {each.cell.key: each for each in outcomes if each.result is not None}.values():
        cell, steps = key.cell, key.result.steps if key.result else 0
        sums[cell.labels["part"]] += (steps - (cell.trunk.step if cell.trunk else 0)) * cell.minibatch_images
    question = case.question
    runs = (len(window.factors) - 1) * len(question.rules_of(case.recipe)) + 1  # at factor 1 all rules are one
    sweep = runs * question.seeds * (question.at[-1] * window.minibatch + window.examples)
    return ExamplesSpent(sums[TRUNK], sums[BRANCH], sums[LONGER], sums[CONTROL], sweep)


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    question, window = case.question, answer.window
    return {
        "rows": list(_rows(answer)),
        "critical": [entry for critical in answer.criticals for entry in _critical_entries(critical, window)],
        "controls": [
            {"step": critical.step, "lr_factor": lr, **_difference_entries(control)}
            for critical in answer.criticals[: len(question.at)]
            for lr, control in critical.controls.items()
        ],
        "trunks": [
            {"lr_factor": lr, "steps": list(question.at), "losses": list(losses), "branched": lr == answer.trunk_lr}
            for lr, losses in answer.trunks.items()
        ],
        "window": window.examples,
        "half_window": window.half,
        "half_life": window.half_life,
        "tolerance_percent": question.tolerance,
        "reference_minibatch": window.minibatch,
        "examples": {**asdict(answer.cost), "total": answer.cost.total},
    }


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """One a branch; the interval, and the mean, are those of its factor over all seeds."""
    window = answer.window
    for critical in answer.criticals:
        differences = {each.factor: each for each in critical.whole.differences}
        for factor in window.factors:
            of_factor = differences.get(factor)
            place = (BRANCH, critical.step, critical.rule, factor, 1.0)
            for seed, curve in answer.curves.get(place, {}).items():
                reference = 0.0 if factor == 1 and curve.at(window.examples) is not None else None
                yield {
                    "step": critical.step,
                    "factor": factor,
                    "minibatch": factor * window.minibatch,
                    "rule": critical.rule,
                    "seed": seed,
                    "status": curve.status,
                    "loss": curve.at(window.examples),
                    "difference": of_factor.by_seed.get(seed) if of_factor else reference,
                    **(_difference_entries(of_factor) if of_factor else {"interval": None, "mean_difference": None}),
                    "folder": curve.folder,
                }


def _difference_entries(difference: Difference) -> dict[str, Any]:
    interval = difference.interval
    return {"interval": None if interval is None else list(interval), "mean_difference": difference.mean}


def _critical_entries(critical: Critical, window: Window) -> Iterator[dict[str, Any]]:
    """Both definitions, in examples."""
    kn, no_loss, half = window.minibatch, critical.whole.no_loss, critical.whole.half
    place = {"step": critical.step, "examples_seen": critical.seen, "rule": critical.rule}
    largest = None if no_loss.largest is None else no_loss.largest * kn
    worse = None if no_loss.worse is None else no_loss.worse * kn
    yield {
        **place,
        "definition": "no_loss",
        "minibatch": largest,
        "interval": None if largest is None else [largest, worse],
        "settled": critical.settled,
        "tolerance": critical.whole.tolerance,
        "reference_loss": critical.whole.reference,
    }
    ends = None if half.interval is None else [_times(end, kn) for end in half.interval]
    b_crit = None if half.factor is None else half.b_crit(half.factor)
    yield {
        **place,
        "definition": "half_efficiency",
        "minibatch": _times(half.factor, kn),
        "interval": ends,
        "settled": critical.half_settled,
        "b_crit": _times(b_crit, kn),
        "b_crit_interval": half.interval and [_times(half.b_crit(end), kn) for end in half.interval],
        **({} if half.factor is None or b_crit else {"why": "twice the examples are needed below twice kn"}),
    }


def _times(factor: float | None, minibatch: int) -> float | None:
    return None if factor is None else factor * minibatch
