"""Landscapes in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchscale.measure.landscape.answer import Answer, Landscape, barrier, loss_at, near, spread
from batchscale.words import counted


def title(answer: Answer) -> str:
    """For people."""
    names = [landscape.name for landscape in answer.landscapes]
    if answer.form == "line":
        return f"Loss from {names[0]}"
    return f"Loss around {names[0]}" if len(names) == 1 else f"Loss around {len(names)} runs"


def asked(answer: Answer) -> str:
    """What was measured, with all that limits it."""
    question = answer.question
    low, high, test = answer.axes[0][0], answer.axes[0][-1], ""
    if question.test_examples:
        test = f", and over {question.test_examples} of {answer.test_population} test {answer.noun}"
    return (
        f"{_where(answer)} {len(answer.points)} points, each axis from {low:g} to {high:g}. Loss and "
        f"{answer.score.name} over the first {question.examples} of {answer.population} training {answer.noun} in one "
        f"fixed order, without augmentation{test}; {answer.weights} trained weights.{_batch_norm(answer)}"
    )


def _where(answer: Answer) -> str:
    if answer.form == "line":
        return "On the line (1 - a) w + a w2 from one run to the other, at"
    axes = "line w + a d" if len(answer.axes) == 1 else "plane w + a d1 + b d2"
    return (
        f"On the {axes} around the weights of each run, d random (seed {answer.question.seed}), each filter as long as "
        f"the weights' own, biases and the weights of normalising layers zero, at"
    )


def _batch_norm(answer: Answer) -> str:
    if not answer.normalised:
        return ""
    if answer.question.batch_norm == "recomputed":
        return " Batch norm by averages recomputed over the training examples at every point."
    if answer.form == "line":
        return " Batch norm by running averages, interpolated between both runs' (variances at least 0)."
    return " Batch norm by the run's running averages at every point."


def sentence(answer: Answer) -> str:
    """The answer."""
    if answer.form == "line":
        return _line_sentence(answer, answer.landscapes[0])
    return "; ".join(_around_sentence(answer, landscape) for landscape in answer.landscapes)


def _around_sentence(answer: Answer, landscape: Landscape) -> str:
    share, ends = near(answer, landscape), spread(landscape.loss)
    if ends is None:
        return f"{landscape.name}: no loss is finite"
    words = f"{landscape.name}: loss from {ends[0]:.4g} to {ends[1]:.4g}"
    if share is None:
        return words
    centre = loss_at(answer, landscape, *(0.0 for _ in answer.axes))
    return (
        f"{words}, {centre:.4g} at the run's weights; at {100 * share:.3g} % of the points at most "
        f"{answer.question.rise:g} above that"
    )


def _line_sentence(answer: Answer, landscape: Landscape) -> str:
    highest = barrier(answer, landscape)
    ends = spread(landscape.loss)
    if highest is None or ends is None:
        return f"{landscape.name}: loss from {ends[0]:.4g} to {ends[1]:.4g}" if ends else "no loss is finite"
    first, last = (loss_at(answer, landscape, end) for end in (0.0, 1.0))
    return (
        f"{landscape.name}: loss {first:.4g} at the first, {last:.4g} at the second; between them at most "
        f"{highest[0]:.4g} above the straight line, at a = {highest[1]:.3g}"
    )


def warnings(answer: Answer) -> Iterator[str]:
    """One line each."""
    missing = sum(value is None for landscape in answer.landscapes for value in landscape.loss)
    if missing:
        yield f"at {counted(missing, 'point')} the loss is not finite: left empty"
    if answer.form == "line" and not {0.0, 1.0} <= set(answer.axes[0]):
        yield (
            "an end of the line is no point of it, so there is no barrier: give --points that meet 0 and 1, such as 25 "
            "from -0.5 to 1.5"
        )
    if answer.form == "around" and not all(0.0 in axis for axis in answer.axes):
        yield "no point is the run itself: use an odd number of --points between --low and --high of one size"
    if answer.averaged:
        yield "the runs are judged at averaged weights; this is around the weights themselves"
    if answer.form == "around":
        yield (
            "a random direction is one of many: widths along it describe a run, and are no cause of how it generalises"
        )
