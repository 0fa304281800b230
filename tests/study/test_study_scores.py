"""A study speaks of the run's own score: its name, its unit, and which way is better."""

import re
from pathlib import Path

import pytest
from support.cases import case_of

from batchscale.records import Result
from batchscale.study.evidence.curves import Group, curve_figures
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.runner.board import described
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.studies import cells_of, findings_of

ERROR = {"name": "error", "unit": "%", "better": "lower"}
IOU = {"name": "iou", "unit": "", "better": "higher"}


def outcome(cell, value, kind, on="test"):
    """A run whose task has this score; value None: it diverged."""
    key = "error_percent" if kind is ERROR else "iou"
    content = {
        "status": "diverged" if value is None else "done", "recipe": "", "folder": "", "test_error_percent": None,
        "test_error_median_last_5": None, "test_loss": 1.0, "train_loss": 0.5, "steps": 99, "epochs": 1.0,
        "images_per_second": 1.0, "wall_seconds": 1.0, "weights_sha256": None, "processes": 1, "workers": 1,
        "per_worker": 1, "evaluated_on": on, "score": {**kind, "value": value}, f"test_{key}": value,
        f"test_{kind['name']}_median_last_5": None if value is None else value / 2,
    }  # fmt: skip
    result = Result.model_validate(content)
    return Outcome(cell, Path("nowhere") / cell.key, result.status, result)


def of_kind(kind, case, values, label, score):
    """Findings of made-up runs: label -> one value a seed, in the unit of the error; an IoU falls by as much."""
    outcomes = [
        outcome(cell, mirrored(values[cell.labels[label]][cell.labels["seed"]], score), score)
        for cell in cells_of(kind, case)
    ]
    return findings_of(kind, case, outcomes, [])


def mirrored(error, score):
    return error if score is ERROR or error is None else 100.0 - error


def stated(score, flag):
    """Half a point, stated where it is not the usual difference."""
    return {} if score is ERROR else {flag: 0.5}


CELL = case_of("grid", ways=["a:"]).recipe
GRID = {"a": (4.0, 6.0), "b": (1.0, 2.0), "wild": (3.0, None)}
WARMUP = {"reference": (1.0, 1.2), "none": (9.0, None), "gradual": (1.5, 1.7)}
ERRORS = {32: (1.0, 1.2), 64: (1.3, 1.4), 128: (5.0, 5.5)}
WEAK = {1: (2.0, 2.2), 2: (2.1, 2.3), 4: (4.0, 4.0)}


@pytest.fixture(params=[ERROR, IOU], ids=["error", "iou"])
def score(request):
    return request.param


def test_a_grid_names_the_best_way(score):
    ways = [f"{name}: minibatch.workers={k}" for k, name in enumerate(GRID, 1)]
    found = of_kind("grid", case_of("grid", ways=ways, seeds=2), GRID, "way", score)
    assert found.answer == {
        "error": "Lowest mean test error: b, 1.50 % +- 0.71 (2 runs); that is 3.50 points (standard error 1.12) "
        "below the first way, a.",
        "iou": "Highest mean test iou: b, 98.50 +- 0.71 (2 runs); that is 3.50 (standard error 1.12) "
        "above the first way, a.",
    }[score["name"]]  # fmt: skip
    wild = found.result["ways"][2]
    mean, each = ("mean_error_percent", "errors") if score is ERROR else ("mean_iou", "ious")
    assert wild[mean] is None  # a run that diverged is worse than any, whichever way is better
    assert wild[each] == [mirrored(3.0, score), None]
    assert found.tables[0].columns[3:6] == {
        "error": ("mean test error (%)", "std (points)", "each seed (%)"), "iou": ("mean test iou", "std", "each seed"),
    }[score["name"]]  # fmt: skip


def test_warmup_names_the_best_kind(score):
    case = case_of("warmup", minibatch=256, kinds="none,gradual", seeds=2, warmup_epochs=1.0)
    found = of_kind("warmup", case, WARMUP, "warmup", score)
    assert {
        "error": "the test error is lowest with gradual warmup, +0.50 points from kn = 32 (1.10 ± 0.14 %)",
        "iou": "the test iou is highest with gradual warmup, -0.50 from kn = 32 (98.90 ± 0.14)",
    }[score["name"]] in found.answer
    ways = found.result["warmup"]["ways"]
    key = "test_error_percent" if score is ERROR else "test_iou"
    assert ways["gradual"][key] == pytest.approx(mirrored(1.6, score))
    assert ways["none"][key] is None


def test_the_elbow_is_where_the_score_gets_worse(score):
    case = case_of("minibatch-error", minibatches=(32, 64, 128), rules="none", seeds=2, **stated(score, "tolerance"))
    found = of_kind("minibatch-error", case, ERRORS, "minibatch", score)
    elbow = found.result["elbow"]
    assert (elbow["minibatch"], elbow["at_least"]) == (64, False)
    key = "reference_error_percent" if score is ERROR else "reference_iou"
    assert elbow[key] == pytest.approx(mirrored(1.1, score))
    assert {
        "error": "the mean test error stays within 0.5 points of kn = 32 (1.10 %) up to kn = 64",
        "iou": "the mean test iou stays within 0.5 of kn = 32 (98.90) up to kn = 64",
    }[score["name"]] in found.answer
    mark = found.figures[0].marks[0]
    assert mark.y == pytest.approx(mirrored(1.6, score))
    assert mark.label == ("reference + 0.5" if score is ERROR else "reference - 0.5")
    later = case_of("minibatch-error", minibatches=(32, 64, 128), rules="none", seeds=2, statistic="median5")
    found = of_kind("minibatch-error", later, ERRORS, "minibatch", IOU)
    assert found.result["elbow"]["reference_iou"] == pytest.approx(98.9 / 2)


def test_weak_scaling_ends_where_the_score_gets_worse(score):
    case = case_of(
        "scaling",
        overrides=["minibatch.workers=4"],
        processes=(1, 2, 4),
        mode="weak",
        seeds=2,
        **stated(score, "error_bound"),
    )
    found = of_kind("scaling", case, WEAK, "processes", score)
    assert found.result["scaling"]["limits"]["weak"]["within"] == 2
    assert {
        "error": "mean test error rises to more than 0.5 points above W = 1's 2.10 % between 2 and 4 processes",
        "iou": "mean test iou falls to more than 0.5 below W = 1's 97.90 between 2 and 4 processes",
    }[score["name"]] in found.answer
    assert found.figures[-1].marks[0].y == pytest.approx(mirrored(2.6, score))


def test_without_a_stated_difference_a_plain_score_may_be_a_hundredth_worse():
    """0.5 is half a point of percent; of an IoU of 0.8, or of nats, it would be nearly all or nothing."""
    values = {32: (20.0, 20.0), 64: (20.7, 20.7), 128: (20.9, 20.9)}  # IoU 80, 79.3, 79.1: a hundredth is 0.8
    case = case_of("minibatch-error", minibatches=(32, 64, 128), rules="none", seeds=2)
    found = of_kind("minibatch-error", case, values, "minibatch", IOU)
    assert (found.result["elbow"]["minibatch"], found.result["elbow"]["tolerance_points"]) == (64, 0.8)
    assert "leaves that at kn = 32 by more than 1 %?" in found.asked
    assert "the mean test iou stays within 1 % of kn = 32 (80.00) up to kn = 64" in found.answer
    assert (found.figures[0].marks[0].label, found.figures[0].marks[0].y) == ("reference - 0.8", pytest.approx(79.2))
    case = case_of("scaling", overrides=["minibatch.workers=4"], processes=(1, 2, 4), mode="weak", seeds=2)
    found = of_kind("scaling", case, dict(zip((1, 2, 4), values.values(), strict=True)), "processes", IOU)
    assert found.result["scaling"]["limits"]["weak"]["within"] == 2
    assert found.result["scaling"]["error_bound_points"] == 0.8
    assert "mean test iou falls to more than 1 % below W = 1's 80.00 between 2 and 4 processes" in found.answer


def test_of_percent_the_usual_difference_is_half_a_point():
    percent, plain = (judged_of([outcome(Cell({}, CELL), 1.0, kind)]) for kind in (ERROR, IOU))
    assert [percent.tolerance(stated, 80.0) for stated in (None, 0.0, 2.0)] == [0.5, 0.0, 2.0]
    assert [plain.tolerance(stated, -80.0) for stated in (None, 0.0, 2.0)] == [0.8, 0.0, 2.0]
    assert plain.tolerance(None, float("inf")) == 0.0  # nothing is within anything of a run that diverged
    assert [each.tolerance_words(None) for each in (percent, plain)] == ["0.5 points", "1 %"]
    assert [each.tolerance_words(0.02) for each in (percent, plain)] == ["0.02 points", "0.02"]


def test_a_row_and_a_line_of_progress_name_the_score():
    cell = Cell({"seed": 0}, case_of("grid", ways=["a:"]).recipe)
    row = outcome(cell, 0.75, IOU).row()
    assert row["test_iou"] == 0.75
    assert not [key for key in row if "error" in key and key != "error"]
    held = outcome(cell, 0.75, IOU, "holdout").row()
    assert (held["test_iou"], held["held_out_iou"]) == (None, 0.75)
    assert re.search(r"done, 0\.75 test iou, 1\.0 s$", described(outcome(cell, 0.75, IOU)))
    assert "done, 0.75 % holdout error" in described(outcome(cell, 0.75, ERROR, "holdout"))


def test_a_loss_is_lower_where_the_score_is_better():
    cell = Cell({}, case_of("grid", ways=["a:"]).recipe)
    lower, higher = judged_of([outcome(cell, 1.0, ERROR)]), judged_of([outcome(cell, 1.0, IOU)])
    assert lower.best((2.0, 1.0, 3.0), float) == 1.0
    assert higher.best((2.0, 1.0, 3.0), float) == 3.0
    assert (lower.worse_by(3.0, 1.0), higher.worse_by(3.0, 1.0)) == (2.0, -2.0)
    for judged in (lower, higher):
        assert judged.worse_by(float("inf"), 1.0) == float("inf")  # diverged
    assert higher.losses(Point(8, (0.5, float("inf")))) == Point(8, (-0.5, float("inf")))
    assert (lower.allowed(2.0, 0.5), higher.allowed(2.0, 0.5)) == (2.5, 1.5)
    assert judged_of([]) == Judged(lower.score, "test")


def test_curves_are_of_the_score(tmp_path):
    judged = judged_of([outcome(Cell({}, case_of("grid", ways=["a:"]).recipe), 1.0, IOU)])
    (tmp_path / "evaluations.jsonl").write_text('{"epoch": 1, "iou": 0.5, "error_percent": 9.0}\n')
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0, "train_iou": 0.25}\n')
    evaluated, trained, loss = curve_figures([Group("a", [tmp_path], False)], 1.0, judged, "About.", "of a")
    assert [figure.id for figure in (evaluated, trained, loss)] == ["iou-epochs", "train-iou-epochs", "loss-epochs"]
    assert [figure.series[0].y for figure in (evaluated, trained, loss)] == [(0.5,), (0.25,), (2.0,)]
    assert [figure.y.label for figure in (evaluated, trained)] == ["test iou", "training iou"]
