"""What all studies share: the same four files, flags from the question's fields, one order, no run twice."""

import argparse
import inspect
import json
import os
import signal
import statistics
import subprocess
import sys
from importlib import import_module

import pytest
from support.commands import refused

from batchscale.cli import main, parser
from batchscale.cli.study.flags import add_flags, question_from
from batchscale.records.findings import read_findings
from batchscale.study.demo.question import Question as Demo
from batchscale.study.question import StudyQuestion, flag, flag_name
from batchscale.study.runner.board import Lines
from batchscale.study.studies import PARTS, STUDIES, question_of

SMALL = ("digits-cnn", "numerics.threads=1", "epochs=0.5")
COMMANDS = {
    "grid": ("study", "grid", *SMALL, "--way", "a:", "--way", "b: minibatch.workers=2", "--seeds", "1"),
    "minibatch-error": (
        "study", "minibatch-error", *SMALL, "learning_rate.warmup.kind=none", "--minibatches", "32,64", "--seeds", "1",
    ),
    "warmup": ("study", "warmup", *SMALL, "--minibatch", "64", "--kinds", "none,gradual", "--seeds", "1"),
    "steps-to-target": (
        "study", "steps-to-target", *SMALL, "--goal", "loss<2", "--minibatches", "32,64", "--trials", "1",
        "--min-steps", "4",
    ),
    "scaling": ("study", "scaling", *SMALL, "minibatch.workers=2", "--processes", "1,2", "--mode", "strong",
                "--seeds", "1"),
    "branch": ("study", "branch", *SMALL, "--at", "4", "--factors", "2", "--window", "128", "--seeds", "1"),
    "demo": ("demo", "--seeds", "1"),
}  # fmt: skip
"""Kind: a small one of it, of at least two runs."""
SHARED = {"--help", "--out", "--jobs", "--launcher", "--slurm", "--data", "--json", "--plugin", "--debug"}


def parser_of(kind):
    """The parser of a study's command."""
    found = parser()
    for word in COMMANDS[kind][: 1 if kind == "demo" else 2]:
        commands = next(a for a in found._actions if isinstance(a, argparse._SubParsersAction))
        found = commands.choices[word]
    return found


@pytest.mark.parametrize("kind", STUDIES)
def test_every_study_has_the_same_files_with_the_same_names(kind):
    grid = {part: import_module(f"{STUDIES['grid']}.{part}") for part in PARTS}
    for part, names in PARTS.items():
        module = import_module(f"{STUDIES[kind]}.{part}")
        assert module.__doc__
        for name in names:
            member, same = getattr(module, name), getattr(grid[part], name)
            if inspect.isfunction(same):
                assert list(inspect.signature(member).parameters) == list(inspect.signature(same).parameters)
    assert issubclass(question_of(kind), StudyQuestion)


@pytest.mark.parametrize("kind", STUDIES)
def test_the_flags_of_a_study_are_exactly_the_fields_of_its_question(kind):
    fields = question_of(kind).model_fields
    flags = {action.dest: action for action in parser_of(kind)._actions if action.option_strings}
    theirs = {name: action for name, action in flags.items() if f"--{name}" not in SHARED}
    assert set(theirs) == set(fields)
    for name, action in theirs.items():
        assert action.option_strings == [flag_name(name, fields[name])]
        assert action.required == fields[name].is_required()
        assert fields[name].description in action.help.replace("%%", "%")


@pytest.mark.parametrize("kind", STUDIES)
def test_a_question_is_read_back_from_its_dump(kind):
    words = [*COMMANDS[kind], *(["--lr", "1e-3..1", "--momentum", "0.9"] if kind == "steps-to-target" else ())]
    options, _ = parser().parse_known_args(words)
    question = question_from(options, question_of(kind))
    dump = json.loads(json.dumps(question.model_dump(mode="json")))
    assert set(dump) == set(question_of(kind).model_fields)
    assert question_of(kind).model_validate(dump) == question


def test_to_list_the_studies_takes_neither_torch_nor_numpy():
    check = "import sys; from batchscale.cli import parser; parser(); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def stopping_after_one(monkeypatch, stopped_by=signal.SIGINT):
    """A study that is told to stop when its first run has ended."""
    ended = Lines.ended

    def once(self, outcome, state):
        ended(self, outcome, state)
        monkeypatch.setattr(Lines, "ended", ended)
        os.kill(os.getpid(), stopped_by)

    monkeypatch.setattr(Lines, "ended", once)


def files_of(folder):
    """All but the lock, which whoever branches from a run takes for a moment."""
    files = (path for path in folder.rglob("*") if path.name != ".lock")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("kind", STUDIES)
def test_a_stopped_study_goes_on_without_repeating_a_run(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Demo, "of_overrides", (*Demo.of_overrides, "epochs=0.5"))
    monkeypatch.setattr("batchscale.cli.demo.available_cores", lambda: 1)
    out = tmp_path / "s"
    command = [*COMMANDS[kind], "--out", str(out), "--json"]
    stopping_after_one(monkeypatch)
    assert main(command) == 130
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "stopped by SIGINT: 1 of " in shown.err
    assert f"go on with: batchscale {' '.join(COMMANDS[kind][:2])}" in shown.err
    (first,) = (result.parent for result in out.glob("runs/*/result.json"))
    before = files_of(first)
    assert json.loads((out / "study.json").read_text())["kind"] == kind
    assert not (out / "findings.json").exists()

    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert files_of(first) == before
    assert len(document["rows"]) > 1
    assert {row["status"] for row in document["rows"]} == {"done"}
    assert {"way", "minibatch", "warmup", "mode", "trial"} & set(document["rows"][0])
    findings = read_findings(out)
    assert (findings.kind, findings.answer) == (kind, document["answer"])
    assert set(findings.result) <= set(document)
    assert findings.answer
    assert findings.figures
    assert findings.tables
    assert (out / "report.html").is_file()
    question = json.loads((out / "study.json").read_text())
    assert "earlier" not in question  # the same question
    del question["options"]["overrides"]
    assert question_of(kind).model_validate(question["options"])


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", "support.tiny_study")


def test_a_study_from_outside_is_one_folder_and_one_line(tiny, tmp_path, capsys):
    out = tmp_path / "s"
    words = ["study", "tiny", "digits-cnn", "numerics.threads=1", "epochs=1", "--rates", "1e-6,0.0125"]
    assert main([*words, "--seeds", "2", "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert set(document) == {"rows", "best_rate", "means", "answer"}
    assert [(row["rate"], row["seed"]) for row in document["rows"]] == [(1e-6, 0), (1e-6, 1), (0.0125, 0), (0.0125, 1)]
    for rate, mean in document["means"].items():
        errors = [row["test_error_percent"] for row in document["rows"] if row["rate"] == float(rate)]
        assert mean == pytest.approx(statistics.fmean(errors))
    assert document["means"]["1e-06"] > 50 > document["means"]["0.0125"]  # one learns nothing
    assert document["answer"] == "The best learning rate is 0.0125."
    assert json.loads((out / "study.json").read_text())["options"] == {
        "overrides": ["numerics.threads=1", "epochs=1"], "seeds": 2, "rates": [1e-6, 0.0125], "margin": 0.0,
    }  # fmt: skip
    assert "Learning rates of digits-cnn" in (out / "report.html").read_text()
    assert main([*words, "--seeds", "2", "--margin", "100", "--out", str(out)]) == 0  # the same runs, asked otherwise
    assert "The best learning rate is 1e-06." in capsys.readouterr().out
    assert len(list((out / "runs").glob("*/result.json"))) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: --rates"),
        (("--rates", "fast"), "--rates=fast: must be numbers; write for example 0.01,0.1"),
        (("--rates", "0.1", "--margin", "-1"), "argument --margin: '-1' must be a number of at least 0"),
        (("--rates", "0.1", "--margin", "nan"), "'nan' must be a number of at least 0"),
        (("--rates", "0.1", "--seeds", "0"), "argument --seeds: '0' must be a whole number of at least 1"),
        (("--rates", "0.1", "--seeds", "1.5"), "'1.5' must be a whole number of at least 1"),
        (("--rates", "0.1", "--speed", "1"), "unrecognized arguments"),
    ],
)
def test_words_that_are_no_question_are_one_line(tiny, words, message, tmp_path, capsys):
    assert message in refused(capsys, "study", "tiny", "digits-cnn", *words, "--out", str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


class Ranged(StudyQuestion):
    """Every kind of range."""

    summary, about = "", ""

    share: float = flag("of 100 %", default=0.5, gt=0, le=1)
    above: int | None = flag("or none", "N", default=None, ge=2)
    even: int = flag("by two", default=2, multiple_of=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "0"], "must be a number above 0 and at most 1"),
        (["--share", "1.1"], "must be a number above 0 and at most 1"),
        (["--above", "1"], "must be a whole number of at least 2"),
    ],
)
def test_the_range_of_a_field_is_told_by_its_flag(words, message, capsys):
    ranged = argparse.ArgumentParser()
    add_flags(ranged, Ranged)
    with pytest.raises(SystemExit):
        ranged.parse_args(words)
    assert message in capsys.readouterr().err
    assert question_from(ranged.parse_args(["--share", "1", "--above", "2"]), Ranged).share == 1.0
    assert "of 100 % (default 0.5)" in ranged.format_help()
    with pytest.raises(Exception, match=r"--even=3: .*multiple of 2"):
        question_from(ranged.parse_args(["--even", "3"]), Ranged)
