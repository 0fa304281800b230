"""Surfaces in the report: round levels shared by limits, contours where the values are, reliefs, files."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from pydantic import ValidationError

from batchscale.records.findings import Axis, Figure, Findings, Series, Surface
from batchscale.report.draw.contours import draw_map
from batchscale.report.draw.file import write_figures
from batchscale.report.draw.levels import SHADES, levels_of, shade
from batchscale.report.draw.relief import draw_relief
from batchscale.report.page.figures import figure_view
from batchscale.report.page.html import render

X = tuple(np.linspace(-1, 1, 21).tolist())
CENTRE = Series(name="the run", x=(0.0,), y=(0.0,), style="points")


def surface(values_of=lambda x, y: x * x + y * y, **changes):
    values = tuple(tuple(values_of(x, y) for x in X) for y in X)
    return Surface(**{"label": "loss", "x": X, "y": X, "values": values, **changes})


def figure(drawn, series=()):
    axis = {"x": Axis(label="along direction 1"), "y": Axis(label="along direction 2")}
    return Figure(id="loss", title="Loss", caption="", series=series, surface=drawn, **axis)


def points_of(path):
    return np.array([[float(number) for number in pair] for pair in re.findall(r"([-\d.]+) ([-\d.]+)", path)])


def test_contours_lie_where_the_values_are():
    drawn = surface(limits=(0.05, 1.05))  # whole circles
    svg = draw_map(figure(drawn), "f", "").svg
    contours = [points_of(path.get("d")) for path in svg.iter("path") if path.get("class") == "contour"]
    levels = levels_of(drawn)
    assert len(levels) == len(contours) > 5
    for level, points in zip(levels, contours, strict=True):
        squares = (((points - (76 + 220, 62 + 220)) / 220) ** 2).sum(1)
        assert squares == pytest.approx(np.full(len(points), level), abs=0.004)  # straight pieces on a grid of 0.1


def test_bands_are_as_large_as_the_set_between_their_levels():
    svg = draw_map(figure(surface(lambda x, y: x)), "f", "").svg
    levels = levels_of(surface(lambda x, y: x))
    bands = [path for path in svg.iter("path") if (path.get("class") or "").startswith("shade")]
    widths = [float(np.ptp(points_of(band.get("d"))[:, 0])) for band in bands]
    assert widths == pytest.approx((220 * np.diff([-1.0, *levels, 1.0])).tolist(), abs=0.15)


def test_the_same_limits_give_the_same_levels():
    steep, flat = (surface(lambda x, y, f=f: 0.1 + f * x * x, limits=(0.1, 40.0), scale="log10") for f in (40, 0.2))
    assert levels_of(steep) == levels_of(flat) == [0.2, 0.5, 1, 2, 5, 10, 20]
    assert levels_of(surface(lambda x, y: 0.1 + x * x, scale="log10"))[-1] == 1


@pytest.mark.parametrize("limits", [(1e-7, 3e5), (0.2999, 0.3001), (5.0, 5.0), (2.0, 9.0)])
@pytest.mark.parametrize("scale", ["linear", "log10"])
def test_levels_are_few_rising_and_within(limits, scale):
    levels = levels_of(surface(limits=limits, scale=scale))
    assert len(levels) < SHADES
    assert levels == sorted(set(levels))
    assert all(limits[0] < level < limits[1] for level in levels)
    assert len(levels) >= 3 or limits[0] == limits[1]
    shades = [shade(band, levels) for band in range(len(levels) + 1)]
    assert len(set(shades)) == len(shades)


@pytest.mark.parametrize("draw", [draw_map, draw_relief])
def test_values_that_are_missing_or_have_no_place_are_left_out(draw):
    def values(x, y):
        return None if x < -0.5 else -1.0 if x > 0.95 else 0.1 + x * x

    drawn = draw(figure(surface(values, scale="log10")), "f", "")
    assert drawn.left_out == 21
    assert len(drawn.points[-1]) == 21 * 21 - 21 * 5 - 21
    assert "nan" not in ET.tostring(drawn.svg, encoding="unicode")


@pytest.mark.parametrize("draw", [draw_map, draw_relief])
@pytest.mark.parametrize("value", [None, 2.5])
def test_a_surface_of_one_value_or_none_is_drawn(draw, value):
    assert draw(figure(surface(lambda x, y: value)), "f", "").left_out == 0


def test_a_relief_draws_every_cell_from_back_to_front_and_higher_where_the_values_are():
    drawn = draw_relief(figure(surface(lambda x, y: 1.0 + (x == 1) * (y == 1))), "f", "")
    cells = [path for path in drawn.svg.iter("path") if (path.get("class") or "").startswith("cell")]
    assert len(cells) == 20 * 20
    fronts = [points_of(cell.get("d"))[:, 1].max() for cell in cells[:-1]]  # the last one is lifted
    assert fronts == sorted(fronts)
    flat = draw_relief(figure(surface(lambda x, y: 1.0 + (x == -1) * (y == -1))), "f", "").points[-1]
    (_, across, down), (_, flat_across, flat_down) = drawn.points[-1][-1], flat[-1]
    assert across == flat_across
    assert flat_down - down == pytest.approx(206)


def test_a_page_shows_a_surface_with_its_numbers():
    both = [figure(surface(form=form), (CENTRE,) if form == "map" else ()) for form in ("map", "relief")]
    view = figure_view(both[0], 1, {})
    names = [(series["name"], len(series["points"])) for series in view.data["series"]]
    assert names == [("the run", 1), ("loss", 441)]
    assert view.data["series"][1]["points"][0][2:] == ["-1", "-1", "2"]
    assert len(view.table.rows) == 13
    assert [cell.words for cell in view.table.rows[0]][:2] == ["1", "2"]  # the map's highest row comes first
    findings = {"kind": "landscape", "title": "t", "recipe": "r", "asked": "a", "answer": "b", "command": ()}
    page = render(Findings(figures=tuple(both), **findings))
    assert page.count('class="cell z') == 400
    again = Findings.model_validate_json(Findings(figures=tuple(both), **findings).model_dump_json())
    assert again.figures[0].surface == both[0].surface


def test_surfaces_become_files(tmp_path):
    both = [figure(surface(form=form)) for form in ("map", "relief")]
    png, svg = write_figures(both, "Landscape", tmp_path / "landscape")
    assert png.stat().st_size > 20_000
    assert "along direction 2" in svg.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": X[:-1]}, "21 rows of 20"),
        ({"y": X[::-1]}, "y must be two places and more, rising"),
        ({"x": (0.0,)}, "x must be two places and more"),
    ],
)
def test_a_surface_is_a_grid(changes, words):
    with pytest.raises(ValidationError, match=words):
        surface(**changes)
