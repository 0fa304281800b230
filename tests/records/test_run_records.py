"""The one reader of a run's folder: whole lines and documents, and what stands for those that are damaged."""

import json

import pytest
from support.example_study import environment, write_run

from batchscale.errors import FolderError
from batchscale.records import RunRecords
from batchscale.records.files import read_lines
from batchscale.records.folder import attempted, attempts
from batchscale.records.run import EVALUATIONS, METRICS


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", "square root", 64, 0)
    return RunRecords(tmp_path / "run")


def test_a_whole_run_says_what_was_written(run):
    assert run.recipe()["minibatch"] == {"workers": 2, "per_worker": 32}
    assert run.recipe_text() == (run.folder / "recipe.yaml").read_text()
    assert run.environment() == environment(host="bench-1")
    assert run.attempts() == [environment(host="bench-1")]
    assert run.metrics() == [json.loads((run.folder / "metrics.jsonl").read_text())]
    assert run.evaluations() == []
    assert run.result().steps == 9375
    assert run.skipped() == {}
    (run.folder / "result.json").unlink()
    assert run.result() is None


def test_attempts_come_newest_first_and_damage_hides_no_other_one(run):
    path = run.folder / "environment.json"
    earlier = [{"from_step": 15, "data": {"a": 1}}, {"damaged": True}, 3, {"from_step": 0}]
    path.write_text(json.dumps({"from_step": 40, "data": {"a": 2}, "earlier": earlier}))
    assert [attempt.get("from_step") for attempt in run.attempts()] == [40, 15, None, 0]
    assert "earlier" not in run.environment()
    assert (attempts(run.folder), attempted(run.folder, "data")) == (4, [{"a": 2}, {"a": 1}])
    path.write_text('{"from_step": 40, "earlier": 3}')
    assert run.attempts() == [{"from_step": 40}]
    for content in ("[", "[1]", '"x"', "[" * 100_000):
        path.write_text(content)
        assert (run.attempts(), attempts(run.folder), attempted(run.folder, "data")) == ([], 0, [])
        with pytest.raises(FolderError, match=r"^environment.json is damaged$"):
            run.environment()
    path.unlink()
    assert run.attempts() == []


def test_points_are_of_lines_that_have_both_numbers(run):
    lines = ['{"epoch": 1, "loss": 2.5}', '{"epoch": null, "loss": 1}', '{"epoch": 2}', '{"epoch": 3, "loss": true}']
    (run.folder / METRICS).write_text("\n".join([*lines, '{"epoch": 4, "loss": 0}', '{"epoch": 5, "lo']))
    assert list(run.points(METRICS, "loss")) == [(1, 2.5), (4, 0)]
    assert list(run.points(EVALUATIONS, "loss")) == []
    assert run.damaged(METRICS) == ([], True)


@pytest.mark.parametrize("end", ["", '{"step": 99, "ep', "\n\n", "[1]\n", "x" * 5000 + "\n"])
@pytest.mark.parametrize("count", [1, 3, 5000])
def test_the_newest_line_is_the_last_whole_one(run, count, end):
    """Of 5,000 lines the end alone is read, which begins in mid-line."""
    path = run.folder / METRICS
    path.write_text("".join(json.dumps({"step": step, "words": "w" * 60}) + "\n" for step in range(count)) + end)
    assert run.newest_metrics() == read_lines(path)[-1]
    assert run.newest_metrics()["step"] == count - 1


def test_no_line_has_no_newest(run):
    (run.folder / METRICS).write_text('{"step')
    assert run.newest_metrics() is None
    (run.folder / METRICS).unlink()
    assert run.newest_metrics() is None


@pytest.mark.parametrize("method", ["recipe", "environment", "result", "skipped"])
def test_a_document_that_is_damaged_is_named(run, method):
    name = {"recipe": "recipe.yaml"}.get(method, f"{'skipped' if method == 'skipped' else method}.json")
    (run.folder / name).write_text("[1, 2")
    with pytest.raises(FolderError, match=f"^{name} is damaged$"):
        getattr(run, method)()
