"""The demonstration: a study like the others, with its own table, document and picture."""

import json
import re

import pytest
from support.cases import case_of

from batchscale.cli import demo, main
from batchscale.records import Result
from batchscale.records.findings import read_findings
from batchscale.study.demo.question import WAYS, Question, seconds
from batchscale.study.runner.cell import Outcome
from batchscale.study.studies import cells_of, findings_of

SHORT = (*Question.of_overrides, "epochs=0.2")


def outcomes_of(case, folder):
    """One run a way and seed; the second of the unscaled lr diverged."""
    for cell in cells_of("demo", case):
        diverged = cell.recipe.learning_rate.scaling == "none" and cell.recipe.seed == 1
        result = Result(
            status="diverged" if diverged else "done", recipe="", folder="",
            test_error_percent=90.0 if diverged else 2.0 + cell.recipe.seed, test_error_median_last_5=0.0,
            test_loss=1.0, train_loss=1.0, steps=99, epochs=30.0, images_per_second=1.0, wall_seconds=1.0,
            weights_sha256=None, processes=1, workers=1, per_worker=1,
        )  # fmt: skip
        yield Outcome(cell, folder / cell.key, result.status, result)


def test_no_mean_where_a_run_diverged(tmp_path):
    case = case_of("demo", seeds=2, overrides=Question.of_overrides)
    outcomes = list(outcomes_of(case, tmp_path))
    assert [o.cell.recipe.seed for o in outcomes] == [0] * 4 + [1] * 4  # a seed after the other
    findings = findings_of("demo", case, outcomes, ["batchscale", "demo"])
    ways = findings.result["ways"]
    assert [(way["name"], way["mean_error_percent"], way["errors"], way["diverged"]) for way in ways[:2]] == [
        ("small", 2.5, [2.0, 3.0], 0), ("unscaled", None, [2.0, None], 1),
    ]  # fmt: skip
    assert [(way["about"], way["minibatch"]) for way in ways] == [
        (way.about, 32 if way.name == "small" else 1024) for way in WAYS
    ]
    assert "large minibatch, lr left unscaled (kn = 1,024): none, 1 of 2 runs diverged" in findings.answer


def test_it_takes_as_long_as_its_rounds_of_runs():
    one_run = seconds(12, 4) - seconds(8, 4)
    assert seconds(12, 1) - seconds(12, 2) == pytest.approx(6 * one_run)
    assert seconds(5, 4) == seconds(8, 4)  # a round of one lasts as long as one of four
    assert seconds(12, 2) < 90
    assert Question().foreword(12, 2) == f"12 runs, 2 at once: about {seconds(12, 2):.0f} s"
    assert Question(task="language").foreword(3, 2) == "3 runs, 2 at once: one to three minutes on two cores"


def test_it_ends_with_a_page_and_goes_on_without_repeating_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Question, "of_overrides", SHORT)
    out = tmp_path / "demo"
    assert main(["demo", "--seeds", "1", "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert set(document) == {"rows", "ways", "figures", "seconds", "answer"}
    keys = {"name", "about", "minibatch", "lr", "seed", "status", "test_error_percent", "folder"}
    for row in document["rows"]:
        assert keys <= set(row)
        assert (tmp_path / row["folder"] / "result.json").is_file()
    assert {row["name"] for row in document["rows"]} == {way.name for way in WAYS}
    assert document["figures"] == [str(out / f"demo{suffix}") for suffix in (".png", ".svg")]
    assert re.match(r"4 runs, \d at once: about \d+ s\n", shown.err)  # before anything else
    assert (out / "report.html").is_file()
    assert read_findings(out).kind == "demo"
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*")}
    assert main(["report", str(out)]) == 0
    capsys.readouterr()
    (out / "study.json").unlink()  # as the line about a damaged one says; its runs are kept
    assert main(["demo", "--seeds", "1", "--out", str(out)]) == 0
    shown, progress = capsys.readouterr()
    assert progress == ""  # nothing is left to run
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*")} == written
    for way in WAYS:
        assert re.search(rf"^{re.escape(way.about)} +(32|1024) +0\.\d+ +\d+\.\d\d %   \d+\.\d\d$", shown, re.MULTILINE)
    assert f"page: {out}/report.html; runs below {out}" in shown


def test_its_picture_has_a_curve_a_way(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("batchscale.report.draw.file.write_figures", lambda figures, *_: written.extend(figures) or [])
    case = case_of("demo", seeds=2, overrides=Question.of_overrides)
    outcomes = list(outcomes_of(case, tmp_path))
    for outcome in outcomes:
        outcome.folder.mkdir()
        lines = [json.dumps({"epoch": epoch, "error_percent": 50.0 / epoch}) for epoch in (1, 2, 50)]
        (outcome.folder / "evaluations.jsonl").write_text("\n".join(lines) + "\n")
    demo._drawn(demo.Answered(tmp_path, tmp_path / "report.html", findings_of("demo", case, outcomes, []), outcomes))
    (figure,) = written
    assert [series.name for series in figure.series] == [
        f"{way.about} (kn = {32 if way.name == 'small' else 1024})" for way in WAYS
    ]
    assert {series.y for series in figure.series} == {(50.0, 25.0, 1.0)}
