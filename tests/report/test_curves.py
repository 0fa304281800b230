"""Errors of groups of runs: the mean at the epochs that all have, the band around it, and a floor for zeros."""

import json

from batchscale.report.curves import error_curves


def test_a_group_is_the_mean_of_its_runs_between_their_lowest_and_highest(tmp_path):
    errors = {"a": {1: 8.0, 2: 4.0, 3: 0.0}, "b": {1: 6.0, 2: None, 3: 0.0}, "c": {1: 1.0, 3: 2.0}}
    for name, by_epoch in errors.items():
        (tmp_path / name).mkdir()
        lines = [json.dumps({"epoch": epoch, "error_percent": error}) for epoch, error in by_epoch.items()]
        (tmp_path / name / "evaluations.jsonl").write_text("\n".join(lines))
    figure = error_curves([("two", [tmp_path / "a", tmp_path / "b"]), ("one", [tmp_path / "c"]), ("none", [])], "t")
    two, one, none = figure.series
    assert (two.x, two.y, two.low, two.high) == ((1, 3), (7.0, 0.1), (6.0, 0.1), (8.0, 0.1))
    assert (one.x, one.y) == ((1, 3), (1.0, 2.0))
    assert none.x == ()
    assert figure.y.scale == "log10"
