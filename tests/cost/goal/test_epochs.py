"""`plan epochs`: the form is found where it holds, and refused where it does not."""

import json

import numpy as np
import pytest
from support.commands import refused
from support.speeds import REFERENCE, write

from batchscale.cli import main
from batchscale.cost.goal.epochs import Workload, fit_epochs, read_workloads

TABLE = REFERENCE / "data_to_target.csv"
COLUMNS = ("benchmark", "unit", "minibatch", "mean_to_target")
MINIBATCHES = (64, 128, 256, 512, 1024, 2048)


def workload(form, minibatches=MINIBATCHES, name="net"):
    return Workload(name, "epochs", tuple(minibatches), tuple(form(b) for b in minibatches))


def holds(minibatch):
    return 12 * (1 + minibatch / 700)


def answer(capsys, path):
    assert main(["plan", "epochs", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_exact_curve_is_found_and_predicts_each_point_from_the_others():
    fitted = fit_epochs(workload(holds))
    assert fitted.critical == pytest.approx(700, rel=1e-3)
    assert fitted.needed_min == pytest.approx(12, rel=1e-3)
    np.testing.assert_allclose(fitted.left_out, fitted.workload.needed, rtol=1e-3)
    assert fitted.exponent[0] == 1
    assert fitted.refusal is None


def test_a_point_is_predicted_without_itself():
    plain = fit_epochs(workload(holds))
    needed = list(plain.workload.needed)
    needed[2] *= 1.15
    changed = fit_epochs(Workload("net", "epochs", MINIBATCHES, tuple(needed)))
    assert changed.left_out[2] == pytest.approx(plain.left_out[2], rel=1e-12)
    assert changed.left_out[3] != plain.left_out[3]
    assert changed.errors_percent[2] == pytest.approx(100 * (1 - 1 / 1.15), rel=0.01)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (lambda b: 12 * (1 + (b / 3000) ** 4), "data want"),
        (lambda b: {64: 8, 128: 18, 256: 17, 512: 22, 1024: 23, 2048: 40}[b], "scatter"),
        (lambda b: 12 * (1 + 0.3 * np.sin(b)), "scatter"),
        (lambda b: 40 - 5 * np.log2(b / 64), "scatter"),
    ],
)
def test_another_form_is_refused_by_its_numbers(form, reason):
    assert reason in fit_epochs(workload(form)).refusal


def test_workloads_that_follow_the_form_with_the_scatter_of_repeats_are_accepted():
    generator = np.random.default_rng(4)
    refusals = [
        fit_epochs(workload(lambda b: holds(b) * np.exp(0.04 * generator.standard_normal()))).refusal for _ in range(25)
    ]
    assert sum(refusal is not None for refusal in refusals) <= 1


def test_without_a_bend_the_critical_minibatch_is_only_bounded():
    fitted = fit_epochs(workload(lambda b: 12.0))
    assert fitted.critical is None
    assert fitted.hyperbola.critical_minibatch.low > max(MINIBATCHES) / 10
    assert fitted.refusal is None
    np.testing.assert_allclose(fitted.left_out, 12, rtol=1e-2)


@pytest.mark.parametrize("count", [2, 3])
def test_fewer_than_four_are_fitted_and_not_judged(tmp_path, capsys, count):
    rows = [("net", "epochs", b, holds(b)) for b in MINIBATCHES[:count]]
    found = answer(capsys, write(tmp_path / "a.csv", rows, COLUMNS))
    (one,) = found["workloads"]
    assert one["critical_minibatch"] == pytest.approx(700, rel=1e-2)
    assert (one["refused"], one["judged"], one["leave_one_out_median_percent"]) == (False, False, None)
    assert "not judged" in one["why"]
    assert [row["predicted"] for row in found["rows"]] == [None] * count
    assert found["median_error_percent"] is None


def test_the_document_has_a_row_for_each_minibatch_and_refused_ones_predict_nothing(tmp_path, capsys):
    rows = [("good", "epochs", b, holds(b)) for b in MINIBATCHES]
    rows += [("bad", "samples", b, 1000 + 900 * (b % 3)) for b in MINIBATCHES]
    found = answer(capsys, write(tmp_path / "a.csv", rows, COLUMNS))
    assert (found["points"], found["of"]) == (6, 12)
    assert {one["benchmark"]: one["refused"] for one in found["workloads"]} == {"good": False, "bad": True}
    assert [row["predicted"] for row in found["rows"] if row["benchmark"] == "bad"] == [None] * 6
    assert found["rows"][0]["measured"] == pytest.approx(holds(64))


def test_equal_minibatches_count_by_their_median(tmp_path):
    rows = [("net", "", 64, 10), ("net", "", 64, 30), ("net", "", 64, 12), ("net", "", 128, 15)]
    (one,) = read_workloads(write(tmp_path / "a.csv", rows, COLUMNS))
    assert (one.minibatches, one.needed) == ((64, 128), (12, 15))


@pytest.mark.parametrize(
    ("rows", "columns", "parts"),
    [
        ([("net", "epochs", 64, 0)], COLUMNS, ["row 2", "mean_to_target=0"]),
        ([("net", "epochs", -64, 3)], COLUMNS, ["row 2", "minibatch=-64"]),
        ([("net", "epochs", 64.5, 3)], COLUMNS, ["row 2", "minibatch=64.5"]),
        ([("", "epochs", 64, 3)], COLUMNS, ["row 2", "benchmark is missing"]),
        ([("net", "epochs", 64, 3), ("net", "samples", 128, 3)], COLUMNS, ["row 3", "unit=samples", "epochs"]),
        ([("net", "epochs", 64, 3)], ("benchmark", "unit", "batch", "mean_to_target"), ["no column minibatch"]),
        ([("net", "epochs", 64, 3)], ("benchmark", "unit", "minibatch", "needed"), ["mean_to_target or"]),
        ([], COLUMNS, ["no row"]),
    ],
)
def test_bad_tables_are_one_line(tmp_path, capsys, rows, columns, parts):
    line = refused(capsys, "plan", "epochs", str(write(tmp_path / "a.csv", rows, columns)))
    for part in ("a.csv", *parts):
        assert part in line


def test_text_says_what_was_refused_and_why(tmp_path, capsys):
    rows = [("bad", "samples", b, 1000 + 900 * (b % 3)) for b in MINIBATCHES]
    assert main(["plan", "epochs", str(write(tmp_path / "a.csv", rows, COLUMNS))]) == 0
    out = capsys.readouterr().out
    assert "Nothing predicted; refused: bad." in out
    assert "around the curve" in out


@pytest.mark.skipif(not TABLE.is_file(), reason="no data_to_target.csv below BATCHSCALE_REFERENCE")
def test_published_workloads_are_predicted_and_cosmoflow_refuses_itself(capsys):
    found = answer(capsys, TABLE)
    assert [one["benchmark"] for one in found["workloads"] if one["refused"]] == ["cosmoflow"]
    assert found["of"] == 54
    assert found["points"] >= 0.75 * found["of"]
    assert found["median_error_percent"] <= 5


@pytest.mark.skipif(not TABLE.is_file(), reason="no data_to_target.csv below BATCHSCALE_REFERENCE")
def test_a_published_workload_is_refused_by_its_numbers_and_not_by_its_name(tmp_path):
    (one,) = (one for one in read_workloads(TABLE) if one.benchmark == "cosmoflow")
    renamed = Workload("bert", one.unit, one.minibatches, one.needed)
    assert fit_epochs(renamed).refusal == fit_epochs(one).refusal
