"""A study's folder: which question it answers, and what a mistake leaves behind."""

import json

import pytest
from launching import run

from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.records.findings import Findings, read_findings
from batchscale.report.page import write_report
from batchscale.study.folder import StudyFolder

ANSWER = Findings(kind="grid", title="t", recipe="digits-cnn", asked="a", answer="old answer", command=("old",))
SHORT = ("digits-cnn", "minibatch.workers=2", "epochs=0.2", "numerics.threads=1", "--seeds", "1")


def opened(path, *words):
    asked = {"kind": "grid", "recipe": "digits-cnn", "options": {"ways": words}, "command": words, "started": "now"}
    return StudyFolder(path, asked, load_recipe("digits-cnn"))


def mistaken(path):
    folder = opened(path, "mistake")
    try:
        raise UsageError("a recipe that cannot run")
    finally:
        folder.close()


def asked_of(path):
    return json.loads((path / "study.json").read_text())


def test_a_larger_question_puts_the_old_answer_aside_until_its_runs_have_ended(tmp_path):
    folder = opened(tmp_path, "first")
    folder.begin(unfinished=True)
    folder.finish(ANSWER)
    folder.close()

    folder = opened(tmp_path, "second")
    folder.begin(unfinished=True)
    folder.close()  # stopped here
    page = write_report(tmp_path).read_text()
    assert "not finished" in page
    assert "old answer" not in page
    assert asked_of(tmp_path)["command"] == ["second"]
    assert [question["command"] for question in asked_of(tmp_path)["earlier"]] == [["first"]]
    assert "old answer" in (tmp_path / "findings.before.json").read_text()

    folder = opened(tmp_path, "second")
    folder.begin(unfinished=True)
    folder.finish(ANSWER.model_copy(update={"answer": "new answer"}))
    folder.close()
    assert read_findings(tmp_path).answer == "new answer"
    assert not (tmp_path / "findings.before.json").exists()
    assert len(asked_of(tmp_path)["earlier"]) == 1  # the same question is not an earlier one


def test_a_question_whose_runs_have_all_ended_keeps_the_answer_until_the_next_is_written(tmp_path):
    folder = opened(tmp_path, "first")
    folder.begin(unfinished=True)
    folder.finish(ANSWER)
    folder.begin(unfinished=False)
    folder.close()
    assert read_findings(tmp_path).answer == "old answer"


@pytest.mark.parametrize("there", ["nothing", "empty folder", "study"])
def test_a_mistake_leaves_the_folder_as_it_was(tmp_path, there):
    out = tmp_path / "s"
    if there != "nothing":
        out.mkdir()
    if there == "study":
        folder = opened(out, "first")
        folder.begin(unfinished=True)
        folder.finish(ANSWER)
        folder.close()
        (out / "runs").rmdir()  # put away elsewhere
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(UsageError):
        mistaken(out)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    assert out.exists() == (there != "nothing")


def test_a_study_without_out_says_where_it_lies_and_its_page_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("study", "grid", *SHORT, "--way", "plain:", "--way", "low lr: learning_rate.reference=0.01")
    assert code == 0, err
    (out,) = (tmp_path / "runs").iterdir()
    assert f"the study's folder: {out.relative_to(tmp_path)}" in err
    command = read_findings(out).command
    assert command[command.index("--out") + 1] == str(out.relative_to(tmp_path))
    assert asked_of(out)["command"] == list(command)
