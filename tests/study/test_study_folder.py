"""A study's folder: which question it answers, and what a mistake leaves behind."""

import json
import subprocess
import sys

import pytest
from support.launching import run

from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.records.findings import Findings, read_findings
from batchscale.report.page import write_report
from batchscale.study.runner.folder import StudyFolder

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


def test_a_question_whose_options_an_earlier_version_wrote_otherwise_is_the_same(tmp_path):
    folder = opened(tmp_path, "first")
    folder.begin(unfinished=True)
    folder.close()
    document = asked_of(tmp_path) | {"options": {"modes": ["strong", "weak"]}}
    (tmp_path / "study.json").write_text(json.dumps(document))
    folder = opened(tmp_path, "first")
    folder.begin(unfinished=True)
    folder.close()
    assert "earlier" not in asked_of(tmp_path)
    assert asked_of(tmp_path)["options"] == {"ways": ["first"]}


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


def test_a_way_takes_a_group_of_entries_and_blanks_within_braces_brackets_and_quotes_part_nothing(tmp_path, capsys):
    ways = [
        "braces: optimizer={name: lars, weight_decay: 1.0e-4}  learning_rate.reference=0.5",
        """quoted: "optimizer={name: lars, weight_decay: 1.0e-4}" 'learning_rate.reference=0.5'""",
        """both: optimizer={name: "lars", weight_decay: 0} learning_rate={reference: 1, reference_minibatch: 32}""",
    ]
    words = ["study", "grid", *SHORT, "--out", str(tmp_path / "s")]
    assert main([*words, *(word for way in ways for word in ("--way", way))]) == 0
    said = capsys.readouterr()
    assert "3 ways to train digits-cnn: 1 seed each, 0.2 epochs" in read_findings(tmp_path / "s").asked
    assert "the ways braces and quoted train the same thing" in said.err
    assert "Mean and standard deviation (n - 1) over the seeds; none where a run diverged." in said.out
    assert asked_of(tmp_path / "s")["options"]["ways"] == {
        "braces": ["optimizer={name: lars, weight_decay: 1.0e-4}", "learning_rate.reference=0.5"],
        "quoted": ["optimizer={name: lars, weight_decay: 1.0e-4}", "learning_rate.reference=0.5"],
        "both": [
            'optimizer={name: "lars", weight_decay: 0}',
            "learning_rate={reference: 1, reference_minibatch: 32}",
        ],
    }


@pytest.mark.parametrize("way", ["a", ": x=1", "a: x", "a: x={b: 1", "a: x=b}", "a: x=[1}", "a: x='b", 'a: x={b: "}'])
def test_a_way_that_is_none_is_one_line(way, tmp_path, capsys):
    assert main(["study", "grid", "digits-cnn", "--way", way, "--out", str(tmp_path / "s")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be 'NAME: key=value key=value', every brace and quote closed" in line


OTHER, MINIBATCHES = "holds other files: --out must be a new or empty folder", ("--minibatches", "32,64")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("minibatch-error", "digits-cnn", *MINIBATCHES, "--reference", "48"), "--reference=48: must be one of"),
        (("minibatch-error", "digits-cnn", "--minibatches", "32,48"), "48 is no multiple of minibatch.per_worker=32"),
        (("minibatch-error", "digits-cnn", *MINIBATCHES), OTHER),
        (("warmup", "digits-cnn", "--minibatch", "16"), "must be above learning_rate.reference_minibatch=32"),
        (("warmup", "digits-cnn", "--minibatch", "64"), OTHER),
        (("scaling", "digits-cnn", "--processes", "1,2"), "strong scaling spreads the recipe's minibatch.workers=1"),
        (("scaling", "digits-cnn", "--mode", "weak"), OTHER),
        (("steps-to-target", "digits-cnn", "--goal", "error<5", "--trials", "2", *MINIBATCHES), OTHER),
    ],
)
def test_what_needs_no_data_is_judged_before_torch_and_the_data(words, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").touch()
    monkeypatch.setitem(sys.modules, "batchscale.build.inputs", None)  # to import it fails
    assert main(["study", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_bad_reference_imports_no_torch():
    words = ["study", "minibatch-error", "digits-cnn", *MINIBATCHES, "--reference", "48"]
    check = f"import sys; from batchscale.cli import main; assert main({words}) == 2; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("study", "grid", "digits-cnn", "--out", ""), "argument --out: '' is no folder"),
        (("train", "digits-cnn", "--out", " "), "argument --out: ' ' is no folder"),
        (("train", "digits-cnn", "--data", ""), "argument --data: '' is no folder"),
        (("study", "grid", "digits-cnn", "--seeds", "\u0663"), "'\u0663' must be a whole number of at least 1"),
        (("study", "grid", "digits-cnn", "--seeds", "1_0"), "'1_0' must be a whole number of at least 1"),
        (
            ("study", "scaling", "digits-cnn", "--error-bound", "\u0663"),
            "'\u0663' must be a number of at least 0",
        ),
        (
            ("study", "minibatch-error", "digits-cnn", *MINIBATCHES, "--reference", "\u0663\u0662"),
            "must be a whole number of at least 1",
        ),
    ],
)
def test_an_empty_folder_name_and_digits_of_other_scripts_are_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
