"""Any figure as PNG and SVG: what is drawn is what the figure holds, and no legend lies on it."""

import math
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from batchscale.records.findings import Axis, Figure, Mark, Series
from batchscale.report.draw import file
from batchscale.report.draw.file import write_figures
from batchscale.report.draw.scales import ruler


def figure_of(*series, x="linear", y="linear", names=(), marks=()):
    axis = Axis(label="of y", scale=y, names=names)
    return Figure(
        id="a", title="A title", caption="", x=Axis(label="of x", scale=x), y=axis, series=series, marks=marks
    )


def line(name, style="line", count=5, **more):
    return Series(name=name, x=tuple(range(1, count + 1)), y=tuple(2.0**n for n in range(count)), style=style, **more)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws figures and gives what was drawn, laid out."""

    def draw(*figures):
        canvases = []
        monkeypatch.setattr(file, "_save", lambda canvas, path: canvases.append(canvas) or path)
        write_figures(figures, "Above all", tmp_path / "figure")
        canvases[0].draw_without_rendering()
        return canvases[0]

    return draw


STYLES = ("line", "points", "dashed", "curve", "reference")


def test_every_point_is_drawn_where_it_is_and_a_gap_is_none(drawn):
    series = [Series(name=style, x=(1, 2, 3), y=(1.0, None, n + 2.0), style=style) for n, style in enumerate(STYLES)]
    (axes,) = drawn(figure_of(*series)).get_axes()
    assert [curve.get_label() for curve in axes.lines] == list(STYLES)
    for n, curve in enumerate(axes.lines):
        assert list(curve.get_xdata()) == [1, 2, 3]
        assert curve.get_ydata()[0] == 1
        assert math.isnan(curve.get_ydata()[1])
        assert curve.get_ydata()[2] == n + 2


@pytest.mark.parametrize("count", [2, 16])
@pytest.mark.parametrize("letters", [3, 28, 40, 75, 200])
def test_no_legend_lies_on_the_axes_or_reaches_out_of_the_file(drawn, count, letters):
    names = [f"{'w large minibatch' * 20}"[:letters].strip() + f" {n}" for n in range(count)]
    canvas = drawn(figure_of(*map(line, names)), figure_of(*map(line, names)))
    for part in canvas.subfigs:
        (legend,) = part.legends
        assert [text.get_text().replace("\n", " ") for text in legend.get_texts()] == names
        box = legend.get_window_extent()
        assert not box.overlaps(part.axes[0].get_window_extent())
        assert part.bbox.x0 <= box.x0 < box.x1 <= part.bbox.x1
        assert part.bbox.y0 <= box.y0
        assert part.axes[0].get_window_extent().height > 3.0 * canvas.dpi  # inches, however long the legend


def looks(curve):
    return to_hex(curve.get_color()), curve.get_marker(), str(curve._unscaled_dash_pattern), curve.get_markerfacecolor()


@pytest.mark.parametrize(("style", "most"), [("line", 16), ("points", 16), ("curve", 8), ("dashed", 3)])
def test_no_two_of_many_series_look_alike(drawn, style, most):
    (axes,) = drawn(figure_of(*(line(str(n), style) for n in range(most)))).get_axes()
    assert len({looks(curve) for curve in axes.lines}) == most


@pytest.mark.parametrize(
    ("scale", "values"), [("log2", (3.0, 4096.0)), ("log10", (1e-3, 40.0)), ("linear", (-3.0, 9.0))]
)
def test_the_ticks_are_the_pages(drawn, scale, values):
    (axes,) = drawn(figure_of(Series(name="a", x=(1, 2), y=values), y=scale)).get_axes()
    axis = ruler(scale, values, 0.0, 1.0)
    assert [
        (y, label.get_text()) for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    ] == axis.ticks(8)
    assert axes.get_ylim() == pytest.approx((axis.low, axis.high))
    assert axes.get_yscale() == ("linear" if scale == "linear" else "log")


def test_whiskers_stand_around_points_and_a_band_around_a_curve(drawn):
    spread = {"low": (0.5, None, 3.0), "high": (1.5, 2.5, 5.0)}
    (axes,) = drawn(figure_of(line("a", count=3, **spread), line("b", "curve", 3, **spread))).get_axes()
    whiskers, band = axes.collections
    assert [segment.tolist() for segment in whiskers.get_segments()] == [[[1, 0.5], [1, 1.5]], [[3, 3], [3, 5]]]
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert {(1.0, 0.5), (1.0, 1.5), (3.0, 3.0), (3.0, 5.0)} <= corners


def test_named_places_have_their_names_and_whiskers_sideways(drawn):
    series = Series(name="images/s", x=(100.0, 50.0), y=(2, 1), low=(90.0, 45.0), high=(110.0, 55.0), style="points")
    (axes,) = drawn(figure_of(series, names=("slow", "fast"))).get_axes()
    assert [(y, label.get_text()) for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)] == [
        (1, "slow"), (2, "fast"),
    ]  # fmt: skip
    assert np.array(axes.collections[0].get_segments()).tolist() == [[[90, 2], [110, 2]], [[45, 1], [55, 1]]]
    assert axes.get_xlim()[1] > 110


def test_marks_are_drawn_with_their_words_within_the_axes(drawn):
    marks = (Mark(label="bar", y=40.0), Mark(label="elbow", x=3.0), Mark(label="span", x=2.0, x_end=9.0))
    (axes,) = drawn(figure_of(line("a"), marks=marks)).get_axes()
    assert [text.get_text() for text in axes.texts] == ["bar", "elbow", "span"]
    assert axes.get_ylim()[1] > 40
    assert axes.get_xlim()[1] > 9


def test_two_files_are_written_and_the_same_every_time(tmp_path):
    figures = [figure_of(line("first"), line("second", "dashed"), marks=(Mark(label="a mark", y=3.0),))] * 2
    written = write_figures(figures, "Above all", tmp_path / "figure")
    assert sorted(tmp_path.iterdir()) == written == [tmp_path / "figure.png", tmp_path / "figure.svg"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    svg = written[1].read_text(encoding="utf-8")
    words = set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert {"Above all", "A title", "first", "second", "a mark", "of x", "of y"} <= words
    again = [path.read_bytes() for path in written]
    write_figures(figures, "Above all", tmp_path / "figure")
    assert [path.read_bytes() for path in written] == again
