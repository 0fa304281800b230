"""`--measure`: numbers of every run's end beside its score, also of runs that had ended before; bad names."""

import json
import math

import pytest
from support.cases import case_of

from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.records.findings import read_findings
from batchscale.study.evidence.measured import MeasuredEnds, cells_of, columns_of
from batchscale.study.studies import cells_of as runs_of

SHORT = ["epochs=0.5", "minibatch.per_worker=16", "numerics.threads=1", "execution.measures=[{name: noise-scale, "
         "options: {examples: 64}}]"]  # fmt: skip
GRID = ["study", "grid", "digits-cnn", *SHORT, "--seeds", "2", "--way", "small:", "--way", "large: minibatch.workers=4"]
ERROR = ["study", "minibatch-error", "digits-cnn", *SHORT, "--seeds", "1", "--minibatches", "16,32"]


def ends(folder):
    """(measures, scale) of the last line of measures.jsonl of each run."""
    files = sorted(folder.glob("runs/*/measures.jsonl"))
    lines = [json.loads(file.read_text().splitlines()[-1]) for file in files]
    return {file.parent.name: line["result"]["noise_scale"] for file, line in zip(files, lines, strict=True)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    out = tmp_path_factory.mktemp("measured") / "grid"
    assert main([*GRID, "--measure", "noise-scale", "--out", str(out)]) == 0
    return out


def test_a_grid_has_the_numbers_beside_the_scores(grid):
    findings, scales = read_findings(grid), ends(grid)
    assert len(scales) == 4
    for way in findings.result["ways"]:
        (numbers,) = way["measures"]
        rows = [row for row in findings.rows if row["way"] == way["name"]]
        values = [scales[row["folder"].removeprefix("runs/")] for row in rows]
        assert numbers["values"] == values
        assert (numbers["measure"], numbers["number"]) == ("noise-scale", "noise scale")
        known = [value for value in values if value is not None]
        assert numbers["mean"] == pytest.approx(sum(known) / len(known))
    table = findings.tables[0]
    place = table.columns.index("noise scale (noise-scale), mean")
    assert [row[place] for row in table.rows] == [
        float(f"{way['measures'][0]['mean']:.4g}") for way in findings.result["ways"]
    ]
    figure = next(figure for figure in findings.figures if figure.id.startswith("score-noise-scale"))
    assert [series.name for series in figure.series] == ["small", "large"]
    assert figure.x.label == "noise scale, images"


@pytest.mark.slow
def test_runs_that_had_ended_are_measured_to_the_same_numbers_and_not_trained_again(grid, tmp_path, capsys):
    plain = [
        word.replace("execution.measures=[{name: noise-scale, options: {examples: 64}}]", "seed=0") for word in GRID
    ]
    out = tmp_path / "grid"
    assert main([*plain, "--out", str(out)]) == 0
    assert not ends(out)
    finished = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")}
    assert "measures" not in read_findings(out).result["ways"][0]
    capsys.readouterr()
    assert main([*GRID, "--measure", "noise-scale", "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("which had ended: noise-scale: noise scale at step") == 4
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert ends(out) == pytest.approx(ends(grid), rel=1e-6)  # fast mode: to rounding
    assert main([*GRID, "--measure", "noise-scale", "--out", str(out)]) == 0  # nothing is measured twice
    assert "which had ended" not in capsys.readouterr().err
    assert {len(file.read_text().splitlines()) for file in out.glob("runs/*/measures.jsonl")} == {1}


@pytest.mark.slow
def test_error_against_minibatch_has_the_numbers_of_every_rule_and_minibatch(tmp_path):
    out = tmp_path / "error"
    assert main([*ERROR, "--measure", "noise-scale", "--out", str(out)]) == 0
    findings, scales = read_findings(out), ends(out)
    rows = findings.result["measures"]
    assert [(row["rule"], row["minibatch"]) for row in rows] == [("linear+gradual", 16), ("linear+gradual", 32)]
    assert sorted(row["values"][0] for row in rows) == sorted(scales.values())
    assert findings.tables[1].columns[-1] == "noise scale (noise-scale), mean"
    assert [row[-1] for row in findings.tables[1].rows] == [float(f"{row['mean']:.4g}") for row in rows]
    figure = next(figure for figure in findings.figures if figure.id.startswith("score-noise-scale"))
    assert [series.x[0] for series in figure.series] == [row["values"][0] for row in rows]


def test_a_measure_is_no_part_of_what_a_run_is():
    fields = {"ways": ("a:",), "seeds": 1}
    (plain,), (measured,) = (
        runs_of("grid", case_of("grid", **fields, **more)) for more in ({}, {"measure": "noise-scale"})
    )
    assert plain.key == measured.key
    assert [one.name for one in measured.recipe.execution.measures] == ["noise-scale"]
    stated = ("execution.measures=[{name: noise-scale, every: 5, options: {examples: 64}}]",)
    (own,) = runs_of("grid", case_of("grid", overrides=stated, **fields, measure="noise-scale"))
    assert own.recipe.execution.measures[0].options == {"examples": 64}
    assert len(own.recipe.execution.measures) == 1


def test_a_name_that_is_no_measure_is_refused(tmp_path, capsys):
    assert main([*GRID, "--measure", "noise-scales", "--out", str(tmp_path / "grid")]) == 2
    assert "--measure=noise-scales: 'noise-scales' is no measure; did you mean noise-scale" in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()
    asked = [word.replace("examples: 64", "example: 64") for word in GRID]
    assert main([*asked, "--out", str(tmp_path / "option")]) == 2
    assert "execution.measures[0].options.example: is no option of noise-scale" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is no measure"):
        case_of("minibatch-error", minibatches="32", measure="noise-scale,hessian")


def test_means_are_of_the_runs_that_have_a_number():
    group = [MeasuredEnds("sharpness", "box", "sharpness, %", (1.0, None, 4.0, math.inf))]
    assert (group[0].mean, group[0].deviation) == (2.5, pytest.approx(3 / math.sqrt(2)))
    assert MeasuredEnds("sharpness", "box", "%", (None,)).mean is None
    assert columns_of([("sharpness", "box")]) == ("box (sharpness), mean",)
    assert cells_of([("sharpness", "box"), ("sharpness", "ball")], group) == (2.5, None)
