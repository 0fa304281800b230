"""Pages of what has not ended, of other tasks: their own score, their own examples."""

import json

import pytest
from support.example_study import write_run

from batchscale.records.findings import Findings
from batchscale.records.score import Score
from batchscale.report.page.runs import read_run, read_runs
from batchscale.report.page.views import headline, run_labels
from batchscale.report.run_findings import run_findings
from batchscale.report.study_findings import study_findings


def write_scored(folder, seed, score, on="test"):
    """A run of another task, judged by this score."""
    write_run(folder, "square root", 64, seed)
    result = json.loads((folder / "result.json").read_text())
    result |= {"test_error_percent": None, "score": score, "examples": "sequences", "evaluated_on": on}
    (folder / "result.json").write_text(json.dumps(result))


IOU = {"name": "iou", "value": 81.25, "unit": "%", "better": "higher"}
NATS = {"name": "cross-entropy", "value": 1.5, "unit": "", "better": "lower"}


@pytest.mark.parametrize(
    ("score", "on", "entries", "words"),
    [
        (IOU, "test", {"test_iou_percent": 81.25}, "test iou 81.25 %"),
        (IOU, "holdout", {"test_iou_percent": None, "held_out_iou_percent": 81.25}, "holdout iou 81.25 %"),
        (NATS, "test", {"test_cross-entropy": 1.5}, "test cross-entropy 1.5"),
    ],
)
def test_an_unfinished_study_shows_the_runs_own_score(tmp_path, score, on, entries, words):
    write_scored(tmp_path / "runs" / "a", 0, score, on)
    (tmp_path / "study.json").write_text(json.dumps({"kind": "grid", "recipe": "own", "options": {}, "command": []}))
    runs, skipped = read_runs(tmp_path)
    (row,) = study_findings(tmp_path, runs, skipped).rows
    assert {name: row[name] for name in row if name.startswith(("test_", "held_out_"))} == entries
    assert headline(runs[0]) == words


def test_a_run_that_ended_since_the_table_was_written_brings_its_score(tmp_path):
    write_scored(tmp_path / "runs" / "a", 0, IOU)
    (tmp_path / "study.json").write_text(json.dumps({"kind": "grid", "recipe": "own", "options": {}, "command": []}))
    table = "way,seed,status,train_loss,folder\nplain,0,missing,,runs/a\nplain,1,missing,,runs/b\n"
    (tmp_path / "table.csv").write_text(table)
    runs, skipped = read_runs(tmp_path)
    ended, waiting = study_findings(tmp_path, runs, skipped).rows
    assert (ended["status"], ended["test_iou_percent"], ended["train_loss"]) == ("done", 81.25, 0.12)
    assert (waiting["status"], waiting.get("test_iou_percent")) == ("missing", None)


def test_no_score_is_a_label_of_a_run():
    rows = ({"way": "a", "test_iou_percent": 80.0, "held_out_mean-ap_percent": 3.0, "status": "done", "folder": "r"},)
    found = Findings(kind="k", title="t", recipe="", asked="", answer="", command=(), rows=rows)
    assert run_labels(found) == {"r": "way a"}


@pytest.mark.parametrize(("evaluated", "label"), [(True, "cross-entropy"), (False, "iou, %")])
def test_a_run_that_has_not_ended_is_drawn_by_its_own_score(tmp_path, evaluated, label):
    folder = tmp_path / "run"
    write_run(folder, "square root", 64, 0)
    (folder / "result.json").unlink()
    name = "cross-entropy" if evaluated else "train_iou_percent"
    line = {"step": 1, "epoch": 0.5, "loss": 1.0, name: 2.0, "lr": 0.1, "minibatch": 64, "sequences_per_second": 9.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    if evaluated:
        scores = {"cross-entropy": 1.5, "perplexity": 4.5}
        evaluation = {"step": 1, "epoch": 0.5, **scores, "loss": 1.5, "sequences": 8, "scores": scores, "on": "test"}
        (folder / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    found = run_findings(folder, read_run(folder, "run"))
    assert label in [figure.y.label for figure in found.figures]
    assert "error" not in [figure.id for figure in found.figures]
    assert found.title.endswith("2 workers of 32 sequences")


def test_a_score_s_name_in_documents():
    assert Score(name="iou", value=1.0, unit="%", better="higher").entries(False) == {"test_iou_percent": 1.0}
    assert Score(name="perplexity", value=None).entries(True) == {"test_perplexity": None, "held_out_perplexity": None}
