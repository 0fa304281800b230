"""The command of a run: what began it, whole, by whichever way; what goes on with it; quoted for a shell."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from support.launching import SMALL

import batchscale
from batchscale.cli import main
from batchscale.records import command
from batchscale.records.command import repetition, resumption, this_command

PACKAGE = Path(batchscale.__file__).parent


@pytest.mark.parametrize(
    ("argv", "orig_argv", "words"),
    [
        ([f"{PACKAGE}/__main__.py", "demo"], ["/bin/python", "-m", "batchscale", "demo"], ["batchscale", "demo"]),
        (["/bin/batchscale", "demo"], ["/bin/python", "/bin/batchscale", "demo"], ["batchscale", "demo"]),
        (["my.py", "a b"], ["/bin/python3.11", "-u", "my.py", "a b"], ["python3.11", "-u", "my.py", "a b"]),
        (["-c"], ["python", "-c", "import x; x()"], ["python", "-c", "import x; x()"]),
    ],
    ids=["python -m batchscale", "console script", "script", "-c"],
)  # fmt: skip
def test_what_started_this_process(argv, orig_argv, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert this_command() == words
    assert this_command(["recipes"]) == ["batchscale", "recipes"]


@pytest.mark.parametrize("launcher", [["/bin/torchrun"], ["-m", "torch.distributed.run"]])
def test_of_a_process_of_torchrun_its_words_tell(launcher, tmp_path, monkeypatch):
    words = ["--nproc-per-node=2", "-m", "batchscale", "train", "digits-cnn", "model={name: mlp}"]
    proc = tmp_path / "cmdline"
    proc.write_bytes(b"".join(word.encode() + b"\0" for word in ["/bin/python", *launcher, *words]))
    monkeypatch.setattr(command, "Path", lambda path: proc if str(path).startswith("/proc/") else Path(path))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert this_command(["train"]) == ["torchrun", *words]
    proc.unlink()
    assert this_command(["train"]) == ["batchscale", "train"]


def test_a_way_on_names_the_folder_once_and_is_quoted():
    began = ["batchscale", "train", "x.yaml", "model={name: mlp}", "--resume=auto"]
    assert (
        resumption(began, "my runs/a") == "batchscale train x.yaml 'model={name: mlp}' --out 'my runs/a' --resume=auto"
    )
    for out in (["--out", "a"], ["--out=a"]):
        assert resumption([*began, *out], "a") == shlex.join([*began[:-1], *out, "--resume=auto"])


def test_a_run_is_repeated_from_its_own_recipe():
    assert repetition(Path("r"), 1, None) == ("batchscale", "train", "r/recipe.yaml")
    assert repetition(Path("r"), 2, Path("d"))[3:] == ("--processes", "2", "--data", "d")


def test_the_records_hold_the_command_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHSCALE_DATA", str(tmp_path))
    given = ["train", *SMALL, "epochs=0.1", "--out", str(tmp_path / "a run")]
    assert main(given) == 0
    found = json.loads((tmp_path / "a run" / "environment.json").read_text())
    assert found["command"] == ["batchscale", *given, "--data", str(tmp_path)]
    assert found["recipe"] == "digits-cnn"


def test_a_run_from_python_records_the_interpreters_words(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["my.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "my.py", "--fast"])
    batchscale.train("digits-cnn", [*SMALL[1:], "epochs=0.1"], out=tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["command"] == ["python", "my.py", "--fast"]
