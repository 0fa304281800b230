"""Warmup at a large minibatch: none, constant and gradual beside the reference minibatch.

Source: Goyal et al. 2017, section 2.2, figure 2 (training curves) and table 2a.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.errors import UsageError
from batchscale.recipe.schema import Recipe
from batchscale.records.findings import Figure, Findings, Table
from batchscale.records.provenance import environment
from batchscale.study.evidence.curves import Group, curve_figures
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.instrument import measured_alike, words_of
from batchscale.study.evidence.quantities import error_percent, evaluated_on, point_of, train_loss
from batchscale.study.evidence.welch import margin
from batchscale.study.rules import Rule, check_fits, check_fixed, parse_rules, recipe_at, workers_of
from batchscale.study.runner.cell import Cell, Outcome, error_entries
from batchscale.words import counted, has

REFERENCE = "reference"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        recipe_name, recipe: the base; its seed is the first, its scaling that of the large minibatch.
        minibatch: the large one.
        kinds: of warmup.
        seeds: how many.
        training_images: N.
        warmup_epochs: how long; None for the recipe's duration.
    """

    recipe_name: str
    recipe: Recipe
    minibatch: int
    kinds: tuple[str, ...]
    seeds: int
    training_images: int
    warmup_epochs: float | None = None

    @property
    def reference(self) -> int:
        """The recipe's learning_rate.reference_minibatch."""
        return self.recipe.learning_rate.reference_minibatch


@dataclass(frozen=True)
class Way:
    """The runs of the reference, or of one warmup.

    Args:
        name: "reference" or the kind of warmup.
        errors: in percent, infinite for a run that diverged.
        losses: training losses of the last epoch, alike.
    """

    name: str
    errors: Point
    losses: Point


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds of warmup from words such as ``none,gradual``.

    Raises:
        UsageError: an unknown kind, one given twice, or none.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        return tuple(rule.warmup for rule in parse_rules(",".join(f"linear+{word}" for word in words)))
    except UsageError:
        raise UsageError(f"--kinds={text}: must name kinds of warmup, each once; write none,constant,gradual") from None


def check_asked(recipe: Recipe, minibatch: int) -> None:
    """Raise where the question is none, whatever the data.

    Args:
        recipe: the base.
        minibatch: the large one.

    Raises:
        UsageError: one line.
    """
    check_fixed(recipe)
    reference = recipe.learning_rate.reference_minibatch
    if minibatch <= reference:
        raise UsageError(
            f"--minibatch={minibatch}: must be above learning_rate.reference_minibatch={reference}, "
            f"which it is compared with; use for example --minibatch {8 * reference}"
        )
    if recipe.learning_rate.scaling == "none":
        raise UsageError(
            "learning_rate.scaling=none: the lr has nowhere to warm up to; use learning_rate.scaling=linear or sqrt"
        )
    workers_of(minibatch, recipe.minibatch.per_worker, "--minibatch")


def cells_of(question: Question) -> list[Cell]:
    """The reference, and the large minibatch with every warmup, with every seed.

    Raises:
        UsageError: one line.
    """
    recipe, n = question.recipe, question.recipe.minibatch.per_worker
    check_asked(recipe, question.minibatch)
    check_fits((question.minibatch,), question.training_images, "--minibatch")
    scaling = recipe.learning_rate.scaling
    ways = {REFERENCE: (question.reference, Rule(scaling, "none"), "learning_rate.reference_minibatch")}
    ways |= {kind: (question.minibatch, Rule(scaling, kind), "--minibatch") for kind in question.kinds}
    made = []
    for name, (minibatch, rule, flag) in ways.items():
        k, size = workers_of(minibatch, n, flag)
        given = recipe_at(recipe, k, size, rule, question.warmup_epochs, question.training_images)
        for seed in range(recipe.seed, recipe.seed + question.seeds):
            labels = {"warmup": name, "minibatch": minibatch, "seed": seed}
            made.append(Cell(labels, given.model_copy(update={"seed": seed})))
    return measured_alike(made, question.training_images)


def ways_of(outcomes: Sequence[Outcome]) -> list[Way]:
    """The outcomes, by way."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.cell.labels["warmup"], []).append(outcome)
    ways = []
    for name, of in found.items():
        minibatch = of[0].cell.labels["minibatch"]
        errors = point_of(minibatch, map(error_percent, of))
        ways.append(Way(name, errors, point_of(minibatch, map(train_loss, of))))
    return ways


def findings_of(question: Question, outcomes: Sequence[Outcome], command: Sequence[str]) -> Findings:
    """What came out, as a document.

    Args:
        question: as asked.
        outcomes: of ``cells_of(question)``.
        command: words of the command line.
    """
    ways, on = ways_of(outcomes), evaluated_on(outcomes)
    seeds = f"{question.seeds} seeds" if question.seeds > 1 else "one seed"
    return Findings(
        kind="warmup",
        title=f"Warmup: {question.recipe_name}",
        recipe=question.recipe_name,
        asked=(
            f"Which warmup brings kn = {question.minibatch:,} nearest to kn = {question.reference:,}? "
            f"{question.training_images:,} training images, {counted(question.recipe.epochs, 'epoch', 'g')}, "
            f"{seeds} each, {question.recipe.learning_rate.scaling} scaling, {_duration(question)}."
            f"{words_of([outcome.cell for outcome in outcomes])}"
        ),
        answer=_sentence(question, ways, on),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=_figures(question, outcomes, on),
        tables=(_table(ways, on),),
        warnings=tuple(_warnings(question, ways)),
        result={"warmup": _as_json(question, ways, on)},
        environment=environment(),
    )


def _duration(question: Question) -> str:
    own = question.recipe.learning_rate.warmup
    if question.warmup_epochs is not None or own.epochs is not None:
        return f"warmup of {counted(question.warmup_epochs or own.epochs or 0, 'epoch', 'g')}"
    return f"warmup of {counted(own.steps, 'step')}" if own.steps is not None else "no warmup"


def _sentence(question: Question, ways: Sequence[Way], on: str) -> str:
    reference, *others = ways
    known = [way for way in others if math.isfinite(way.errors.mean)]
    if not known or math.isinf(reference.errors.mean):
        return f"No comparison: {'the reference' if known else 'every large minibatch'} diverged or has no result."
    best = min(known, key=lambda way: way.errors.mean)
    each = "; ".join(f"{_called(way.name)} {_said(way.errors)}" for way in others)
    sentence = (
        f"At kn = {question.minibatch:,} the {on} error is lowest with {_called(best.name)}, "
        f"{best.errors.mean - reference.errors.mean:+.2f} points from kn = {question.reference:,} "
        f"({_said(reference.errors)}): {each}"
    )
    if question.seeds == 1:
        return f"{sentence}; one seed, so no difference is sure."
    return f"{sentence}{_not_told_apart(best, [way for way in known if way is not best])}."


def _called(kind: str) -> str:
    """A kind of warmup in a sentence, where "none" would read as a word."""
    return {"none": "no warmup", REFERENCE: "the reference"}.get(kind, f"{kind} warmup")


def _not_told_apart(best: Way, others: Sequence[Way]) -> str:
    margins = {_called(way.name): margin(way.errors, best.errors) for way in others}
    apart = {_called(way.name): way.errors.mean - best.errors.mean for way in others}
    close = [name for name, points in margins.items() if points is not None and apart[name] <= points]
    unknown = [name for name, points in margins.items() if points is None]
    said = f"; the seeds do not tell {', '.join(close)} from it (Welch's t, 95 %)" if close else ""
    if unknown:
        said += f"; whether {', '.join(unknown)} differ{'s' * (len(unknown) == 1)} cannot be told: no spread is known"
    return said


def _said(point: Point) -> str:
    if math.isinf(point.mean):
        return "diverged" if point.errors else "no result"
    deviation = point.deviation()
    return f"{point.mean:.2f} %" if deviation is None else f"{point.mean:.2f} ± {deviation:.2f} %"


def _as_json(question: Question, ways: Sequence[Way], on: str) -> dict[str, Any]:
    return {
        "minibatch": question.minibatch,
        "reference_minibatch": question.reference,
        "evaluated_on": on,
        "ways": {
            way.name: {
                **error_entries(None if math.isinf(way.errors.mean) else way.errors.mean, on == "holdout"),
                "deviation": way.errors.deviation(),
                "train_loss": None if math.isinf(way.losses.mean) else way.losses.mean,
                "train_loss_deviation": way.losses.deviation(),
                "diverged": sum(map(math.isinf, way.errors.errors)),
            }
            for way in ways
        },
    }


def _figures(question: Question, outcomes: Sequence[Outcome], on: str) -> tuple[Figure, ...]:
    groups = [
        Group(
            f"kn = {question.reference:,}" if name == REFERENCE else f"kn = {question.minibatch:,}, {name}",
            [o.folder for o in outcomes if o.cell.labels["warmup"] == name and o.status == "done"],
            name == REFERENCE,
        )
        for name in dict.fromkeys(str(o.cell.labels["warmup"]) for o in outcomes)
    ]
    about = "Means over seeds; runs that diverged are left out."
    return curve_figures(groups, question.recipe.epochs, on, about, "with each warmup, against the reference")


def _table(ways: Sequence[Way], on: str) -> Table:
    def rounded(value: float | None) -> float | None:
        return None if value is None or math.isinf(value) else round(value, 4)

    bar = ways[0].errors.mean
    return Table(
        title="Warmup at the large minibatch",
        columns=(
            "warmup", "kn", "training loss", "deviation", f"{on} error (%)", "deviation", "to the reference",
            "diverged", "runs",
        ),
        rows=tuple(
            (
                way.name, way.errors.minibatch,
                rounded(way.losses.mean), rounded(way.losses.deviation()),
                rounded(way.errors.mean), rounded(way.errors.deviation()),
                rounded(way.errors.mean - bar) if math.isfinite(bar) else None,
                sum(map(math.isinf, way.errors.errors)), len(way.errors.errors),
            )
            for way in ways
        ),
        caption="Means over seeds, standard deviations with n - 1; training loss of the last whole epoch.",
    )  # fmt: skip


def _warnings(question: Question, ways: Sequence[Way]) -> Iterator[str]:
    for way in ways:
        if diverged := sum(map(math.isinf, way.errors.errors)):
            yield f"{_called(way.name)}: {diverged} of {counted(question.seeds, 'run')} diverged: no mean is given"
        if missing := question.seeds - len(way.errors.errors):
            yield f"{_called(way.name)}: {missing} of {counted(question.seeds, 'run')} {has(missing)} no result"
    if question.seeds == 1:
        yield "one seed: the spread is not known"
    if question.reference < question.recipe.minibatch.per_worker:
        yield (
            f"the reference, kn = {question.reference:,}, is below n = {question.recipe.minibatch.per_worker}: "
            f"one worker of kn images, so batch norm is over kn there"
        )
