"""The critical minibatch in words, and what makes it doubtful."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.build.constants import jump_warning
from batchscale.build.trunk import run_plan
from batchscale.study.branch.answer import Answer
from batchscale.study.branch.cells import LONGER
from batchscale.study.branch.paired import FEWEST_SEEDS, Difference
from batchscale.study.branch.question import Question
from batchscale.study.branch.recipes import measured_without_lag
from batchscale.study.branch.verdicts import Critical
from batchscale.study.branch.window import FEWEST_STEPS, Window
from batchscale.study.evidence.instrument import words_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.words import counted


def title(case: Case[Question]) -> str:
    """Of the page."""
    return f"{case.recipe_name}: the critical minibatch, from branches"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    question, window = case.question, case.question.window_of(case.recipe)
    kn = window.minibatch
    trunk = "the run" if case.run is not None else "a trunk"
    steps = ", ".join(f"{step:,}" for step in question.at)
    ramp = f"Its lr goes from the trunk's to its own over {question.warmup:,} examples. " if question.warmup else ""
    return (
        f"How large may the minibatch be after {steps} steps of {trunk} of {case.recipe_name} at kn = {kn:,}? Branches "
        f"from these checkpoints at {', '.join(map(str, window.factors))} times kn, "
        f"{' and '.join(f'rule {rule}' for rule in question.rules_of(case.recipe))}, "
        f"{counted(window.examples, 'image', ',')} each ({counted(window.examples // window.largest, 'step')} of the "
        f"largest), {counted(question.seeds, 'order')} of the images, the same at every factor. {ramp}Losses are those "
        f"of averaged weights, half-life {window.half_life:,.0f} images, on one evaluation set."
        f"{words_of([outcome.cell for outcome in outcomes])} Without loss: worse by "
        f"less than {question.tolerance:g} % of factor 1's loss (one-sided, 5 %, factors tested in rising order up to "
        f"the first that fails). Half efficiency: twice the images that factor 1 needs for its loss at the end of the "
        f"window."
    )


def sentence(case: Case[Question], answer: Answer) -> str:
    """The answer after every checkpoint, and its cost."""
    if not answer.criticals:
        return "No answer: no trunk came to its last checkpoint."
    rules = len(case.question.rules_of(case.recipe)) > 1
    parts = [_critical_text(critical, answer.window, rules) for critical in answer.criticals]
    cost = answer.cost
    text = "; ".join(parts)
    return (
        f"{text[0].upper()}{text[1:]}. The study trained on {counted(cost.total, 'image', ',')}; every factor trained "
        f"from its first step would have taken {cost.sweep:,}."
    )


def _critical_text(critical: Critical, window: Window, rules: bool) -> str:
    rule = f" by rule {critical.rule}" if rules else ""
    return (
        f"after {counted(critical.seen, 'image', ',')}{rule}: {no_loss_text(critical, window)}, "
        f"half efficiency {half_text(critical, window)}"
    )


def no_loss_text(critical: Critical, window: Window) -> str:
    """The largest without loss, as in a sentence."""
    no_loss, kn = critical.whole.no_loss, window.minibatch
    if no_loss.largest is None:
        return "too few seeds to tell the largest minibatch without loss"
    unsettled = "" if critical.settled else ", unsettled"
    worse = f"{no_loss.worse * kn:,} is worse" if no_loss.worse else "none tried is shown to be worse"
    if no_loss.largest == 1:
        return f"no larger minibatch than {kn:,} is shown to be without loss ({worse}{unsettled})"
    return f"without loss up to {no_loss.largest * kn:,} ({worse}{unsettled})"


def half_text(critical: Critical, window: Window) -> str:
    """Where half efficiency is, as in a sentence."""
    half, kn = critical.whole.half, window.minibatch
    if not half.seeds:
        return "not to be told (the loss of factor 1 did not fall over the window)"
    if half.factor is None:
        low = f"above {half.interval[0] * kn:,.0f}" if half.interval else "beyond the largest factor"
        return f"{low} (not every seed needs twice the images at a factor tried)"
    ends = half.interval
    span = f" ({ends[0] * kn:,.0f} to {(ends[1] or math.inf) * kn:,.0f})" if ends else ""
    return f"at {half.factor * kn:,.0f}{span}{'' if critical.half_settled else ', unsettled'}"


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What makes the answer doubtful, one line each."""
    question, window = case.question, answer.window
    if question.seeds < FEWEST_SEEDS:
        yield (
            f"--seeds={question.seeds}: fewer than {FEWEST_SEEDS}, so no interval is known and nothing is shown to be "
            f"without loss; give --seeds 5"
        )
    steps = window.examples // window.largest
    if steps < FEWEST_STEPS:
        yield (
            f"the window is {counted(steps, 'step')} of the largest factor: over fewer than {FEWEST_STEPS} its start "
            f"is what is measured, and the answer is narrow and may be wrong; give --window "
            f"{FEWEST_STEPS * window.largest} or more"
        )
    if case.run is not None and measured_without_lag(case.recipe) != case.recipe:
        yield (
            "the run was trained with batch_norm.running=averages: where its net has batch norm, evaluations lag about "
            "ten steps behind the weights, at factor f by f times as many images, so larger minibatches look worse "
            "than they are; give its recipe in place of the run, or train it with batch_norm.running=recomputed"
        )
    yield from _of_schedule(case, window)
    yield from _of_sweep(answer)
    for critical in answer.criticals:
        yield from _of_checkpoint(critical, window, len(question.rules_of(case.recipe)) > 1)
    yield from dict.fromkeys(filter(None, (_jump(case, outcome.cell) for outcome in outcomes)))
    for outcome in outcomes:
        labels = outcome.cell.labels
        if outcome.status in ("failed", "diverged"):
            why = f": {outcome.error}" if outcome.error else ""
            longer = ", beyond the window" if labels["part"] == LONGER else ""
            yield f"runs/{outcome.folder.name} (factor {labels['factor']}{longer}) {outcome.status}{why}"


def _of_schedule(case: Case[Question], window: Window) -> Iterator[str]:
    """A window that lies in the warmup, or passes the decay's end."""
    entry, kn, images = case.recipe.learning_rate, window.minibatch, case.training_images
    warm = (entry.warmup.epochs or 0) * images + (entry.warmup.steps or 0) * kn
    early = [step for step in case.question.at if entry.warmup.kind != "none" and step * kn < warm]
    if early:
        yield (
            f"--at {', '.join(map(str, early))}: within the warmup, so the lr rises in the window, at every factor "
            f"alike in images"
        )
    end = (entry.decay.end or case.recipe.epochs) * images
    late = [step for step in case.question.at if step * kn + window.examples > end]
    if late and entry.decay.kind in ("cosine", "polynomial"):
        yield (
            f"--at {', '.join(map(str, late))}: the {entry.decay.kind} decay ends within the window, whose rest is at "
            f"the last lr; name earlier steps, or give more epochs"
        )


def _jump(case: Case[Question], cell: Cell) -> str | None:
    """That a branch's rule leaves little of Adam's mean."""
    return jump_warning(cell.recipe, run_plan(cell.recipe, case.training_images, cell.trunk), cell.trunk)


def _of_sweep(answer: Answer) -> Iterator[str]:
    """The best lr of the trunk at the border, or another one that is better earlier."""
    lrs = sorted(answer.trunks)
    if len(lrs) > 1 and answer.trunk_lr in (lrs[0], lrs[-1]):
        way = "smaller" if answer.trunk_lr == lrs[0] else "larger"
        yield (
            f"--lr-sweep: the best multiple, {answer.trunk_lr:g}, is the {way[:-2]}est tried: a {way} one may be "
            f"better; widen the list"
        )


def _of_checkpoint(critical: Critical, window: Window, rules: bool) -> Iterator[str]:
    where = f"after {critical.step:,} steps{f', rule {critical.rule}' if rules else ''}"
    if critical.whole.no_loss.largest is not None and not critical.settled:
        earlier = critical.earlier.no_loss.largest if critical.earlier else None
        at_half = f"at half of the window it is {earlier * window.minibatch:,}" if earlier else "half of it tells none"
        yield (
            f"{where}: unsettled: the largest minibatch without loss is "
            f"{critical.whole.no_loss.largest * window.minibatch:,} at the window's end, and {at_half}; give a longer "
            f"--window"
        )
    if critical.whole.half.factor is not None and critical.earlier is not None and not critical.half_settled:
        earlier_half = critical.earlier.half.factor
        at_half = "none is reached" if earlier_half is None else f"it is {earlier_half * window.minibatch:,.0f}"
        yield f"{where}: half efficiency is unsettled: with half of the window {at_half}; give a longer --window"
    half = critical.whole.half
    if half.factor is not None and half.bracketed:
        yield (
            f"{where}: half efficiency is between two factors, of which the larger never had factor 1's loss within "
            f"twice the window, of {counted(half.bracketed, 'seed')} of {half.seeds}: the interval is that of the "
            f"factors; give --factors in between"
        )
    if half.factor is not None and half.b_crit(half.factor) is None:
        yield (
            f"{where}: twice the images are needed at {half.factor * window.minibatch:,.0f} already, below twice kn, "
            f"as no hyperbola has it, so no critical minibatch is told (b_crit is null): what the change itself stirs "
            f"up is measured; give a longer --window, --warmup, or another learning_rate.reference"
        )
    if critical.wanted_examples is not None:
        yield (
            f"{where}: the evaluation set is too small to tell {critical.whole.tolerance:.3g}: about "
            f"{critical.wanted_examples:,} images would do; the intervals are of this set alone"
        )
    yield from _of_lr(critical, where)


def _of_lr(critical: Critical, where: str) -> Iterator[str]:
    """Where larger factors, or factor 1 under another lr, end below factor 1: the trunk's lr is measured."""
    gaining = [str(each.factor) for each in critical.whole.differences if each.gains]
    better = {lr: each for lr, each in critical.controls.items() if each.gains}
    if gaining:
        yield (
            f"{where}: factor {', '.join(gaining)} ends below factor 1: the trunk's lr is what is being measured "
            f"there, not the minibatch{_controls_text(better)}; give --lr-sweep, or another learning_rate.reference"
        )
    elif better:
        yield (
            f"{where}: the trunk's lr is not its best{_controls_text(better)}: against it larger factors would look "
            f"worse; give --lr-sweep, or another learning_rate.reference"
        )


def _controls_text(better: dict[float, Difference]) -> str:
    if not better:
        return ""
    parts = [f"at {lr:g} times its lr factor 1 gains {-(each.mean or 0):.3g}" for lr, each in better.items()]
    return f" ({', '.join(parts)})"
