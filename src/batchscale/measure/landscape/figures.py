"""Landscapes as curves, maps and reliefs, all runs on one scale, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from batchscale.measure.landscape.answer import Answer, Landscape, barrier, loss_at, near, spread
from batchscale.records.findings import Axis, Figure, Mark, Scale, Series, Surface, Table
from batchscale.records.measured import MeasuredNumber

_LOG_FROM = 20.0  # times the lowest value: from there on a linear scale shows nothing of what lies low


def figures(answer: Answer) -> list[Figure]:
    """Along one axis a figure of the loss and one of the score; over a plane maps and a relief of each run."""
    loss, score = "loss", _score_label(answer)
    if len(answer.axes) == 1:
        return [_curves(answer, "loss", loss), _curves(answer, "score", score)]
    maps = [_surface(answer, one, "loss", loss, "map") for one in answer.landscapes]
    reliefs = [_surface(answer, one, "loss", loss, "relief") for one in answer.landscapes]
    return [*maps, *reliefs, *(_surface(answer, one, "score", score, "map") for one in answer.landscapes)]


def _score_label(answer: Answer) -> str:
    return f"{answer.score.name}, {answer.score.unit}" if answer.score.unit else answer.score.name


def numbers(answer: Answer) -> list[MeasuredNumber]:
    """How far around the run the loss stays low; of a line nothing hangs on a step."""
    if answer.form == "line":
        return []
    share = near(answer, answer.landscapes[0])
    axis = f"% of the points where the loss is at most {answer.question.rise:g} above the run's"
    return [MeasuredNumber("near", axis, share and 100 * share)]


def _curves(answer: Answer, name: str, label: str) -> Figure:
    series = []
    for landscape in answer.landscapes:
        for part, words in ((name, "training"), (f"test_{name}", "test")):
            values = getattr(landscape, part)
            if values:
                title = words if len(answer.landscapes) == 1 else f"{landscape.name}, {words}"
                series.append(Series(name=title, x=answer.axes[0], y=values, style="curve"))
    every = [value for one in series for value in one.y]
    scale = _scale(every) if name == "loss" else "linear"
    where = answer.landscapes[0].name if len(answer.landscapes) == 1 else "the runs"
    axis = Axis(label="a: 0 is the first run, 1 the second" if answer.form == "line" else "a, along the direction")
    marks = [Mark(label=words, x=place) for words, place in _ends(answer) if _within(answer, place)]
    return Figure(
        id=name,
        title=f"{_title(label)} {'from' if answer.form == 'line' else 'around'} {where}",
        caption=f"Over {_parts(answer)}.",
        x=axis,
        y=Axis(label=label, scale=scale),
        series=tuple(series),
        marks=tuple(marks),
    )


def _title(label: str) -> str:
    """A label without its unit."""
    return label.partition(",")[0].capitalize()


def _ends(answer: Answer) -> list[tuple[str, float]]:
    if answer.form == "around":
        return [("the run", 0.0)]
    first, second = (answer.landscapes[0].directions[0][end] for end in ("from", "to"))
    return [(first, 0.0), (second, 1.0)]


def _within(answer: Answer, place: float) -> bool:
    return answer.axes[0][0] <= place <= answer.axes[0][-1]


def _parts(answer: Answer) -> str:
    question = answer.question
    test = f" and {question.test_examples} test" if question.test_examples else ""
    return f"{question.examples} training{test} {answer.noun}"


def _surface(answer: Answer, landscape: Landscape, name: str, label: str, form: str) -> Figure:
    every = [value for one in answer.landscapes for value in getattr(one, name)]
    first, second = answer.axes
    values = getattr(landscape, name)
    # The document runs along the second axis fastest; a surface has a row for every place of its vertical one.
    rows = [values[row :: len(second)] for row in range(len(second))]
    surface = Surface(
        label=f"{label}, training",
        x=first,
        y=second,
        values=tuple(map(tuple, rows)),
        scale="log10" if name == "loss" and _scale(every) == "log10" else "linear",
        limits=spread(every),
        form="map" if form == "map" else "relief",
    )
    point = Series(name="the run", x=(0.0,), y=(0.0,), style="points")
    shown = form == "map" and _within(answer, 0.0)
    shared = "" if len(answer.landscapes) == 1 else " The levels are the same for all runs."
    return Figure(
        id=f"{name}-{form}-{landscape.name}",
        title=f"{_title(label)} around {landscape.name}",
        caption=f"Over {_parts(answer)}.{' The point is the run.' if shown else ''}{shared}",
        x=Axis(label="a, along the first direction"),
        y=Axis(label="b, along the second direction"),
        series=(point,) if shown else (),
        surface=surface,
    )


def _scale(values: Sequence[float | None]) -> Scale:
    ends = spread(values)
    return "log10" if ends is not None and 0 < _LOG_FROM * ends[0] < ends[1] else "linear"


def tables(answer: Answer) -> list[Table]:
    """A row a run, or a row for each end of the line."""
    score = _score_label(answer)
    if answer.form == "line":
        return [_line_table(answer, score)]
    columns = ("run", "step", "loss", score, "lowest loss", "highest loss", "% of points near")
    rows = []
    for one in answer.landscapes:
        centre = [0.0 for _ in answer.axes]
        share, ends = near(answer, one), spread(one.loss) or (None, None)
        numbers = (loss_at(answer, one, *centre), _score_at(answer, one, *centre), *ends, share and 100 * share)
        rows.append((one.name, one.steps[0], *map(_rounded, numbers)))
    caption = f"Near: at most {answer.question.rise:g} above the loss at the run's weights."
    return [Table(title="Landscapes", columns=columns, rows=tuple(rows), caption=caption)]


def _line_table(answer: Answer, score: str) -> Table:
    one = answer.landscapes[0]
    rows = []
    for (name, place), step in zip(_ends(answer), one.steps, strict=True):
        numbers = (place, loss_at(answer, one, place), _score_at(answer, one, place))
        rows.append((name, step, *map(_rounded, numbers)))
    highest = barrier(answer, one)
    caption = "" if highest is None else f"Between them at most {highest[0]:.4g} above the straight line."
    return Table(title="Ends", columns=("run", "step", "a", "loss", score), rows=tuple(rows), caption=caption)


def _score_at(answer: Answer, landscape: Landscape, *point: float) -> float | None:
    return dict(zip(answer.points, landscape.score, strict=True)).get(point)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
