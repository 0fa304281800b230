"""Names of files that are no UTF-8, or hold line breaks, end no command, and are written in one way."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
from support.launching import SMALL
from support.pictures import jpeg, noise

import batchscale
from batchscale.cli import main
from batchscale.errors import DataError
from batchscale.study.runner.table import write_table
from batchscale.system import notes
from batchscale.words import shown

RECIPE = [
    "data={name: folder, augment: {crop: scale-aspect, size: 32}}", "model.name=cnn", "minibatch.workers=2",
    "minibatch.per_worker=3", "epochs=1", "execution.device=cpu", "numerics.threads=1",
]  # fmt: skip


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """A set below a folder, in classes and of files with such names; one file cannot be read, three are no images."""
    root = os.fsencode(tmp_path) + b"/d\xfdta"
    for part, images in ((b"train", 4), (b"val", 1)):
        for name in (b"a\xfe", b"new\nline"):
            folder = b"/".join((root, part, name))
            os.makedirs(folder)
            for i in range(images):
                Path(os.fsdecode(folder + b"/\xff%d.jpg" % i)).write_bytes(jpeg(noise(20, 24, i)))
    for name in (b"train/a\xfe/bad\xff\n.jpg", b"train/str\xffay.jpg", b"train/a\xfe/no\xff.txt", b"train/a\xfe/.\xff"):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"")
    return Path(os.fsdecode(root))


BAD = r"d\xfdta/train/a\xfe/bad\xff\n.jpg"


def terminal(monkeypatch: pytest.MonkeyPatch) -> list[io.BytesIO]:
    """Standard output and error as a terminal's: they take UTF-8 alone. In a fixture pytest would replace them."""
    streams = [io.BytesIO(), io.BytesIO()]
    for name, errors, stream in zip(("stdout", "stderr"), ("strict", "backslashreplace"), streams, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, "utf-8", errors, write_through=True))
    return streams


def test_check_and_prepare_tell_such_names(awkward: Path, monkeypatch: pytest.MonkeyPatch):
    """On 91b3349 the check ended in a traceback after half of its report."""
    utf8 = terminal(monkeypatch)
    assert main(["data", "check", "folder", "--data", str(awkward)]) == 2
    out, err = (stream.getvalue().decode() for stream in utf8)
    assert f"/{BAD}: empty" in out
    for passed in (r"str\xffay.jpg", r"a\xfe/no\xff.txt", r"a\xfe/.\xff"):
        assert f": {passed}\n" in out
    assert r"d\xfdta: 1 file cannot be read" in err
    assert err.count("\n") == 1
    assert main(["data", "check", "folder", "--data", str(awkward), "--json"]) == 2
    row = json.loads(utf8[0].getvalue().decode().removeprefix(out))["data"][0]
    assert [name.endswith(BAD) for name in row["train"]["bad"]] == [True]
    assert main(["data", "prepare", "folder", "--data", str(awkward)]) == 2
    assert f"/{BAD}: empty: must be a readable image" in utf8[1].getvalue().decode()
    assert main(["data", "prepare", "folder", "--data", str(awkward), "--skip-bad"]) == 0
    assert r"d\xfdta-packed" in utf8[0].getvalue().decode()
    assert main(["data", "check", "folder", "--data", f"{awkward}-packed"]) == 0


def test_a_run_on_such_files_is_trained_recorded_and_drawn(awkward: Path, monkeypatch: pytest.MonkeyPatch):
    utf8 = terminal(monkeypatch)
    out = awkward.parent / os.fsdecode(b"r\xfcn")
    trained = batchscale.train("digits-cnn", [*RECIPE, "data.skip_bad=true"], data_folder=awkward, out=out)
    assert trained.skipped_files == 1
    assert [name.endswith(BAD) for name in json.loads((out / "skipped.json").read_text())] == [True]
    assert main(["report", str(out)]) == 0
    assert BAD in (out / "report.html").read_text(encoding="utf-8")
    assert rb"r\xfcn/report.html" in utf8[0].getvalue()
    before = utf8[1].getvalue()
    assert rb"passed over beside the images: train: 1 image beside the class folders (str\xffay.jpg), " in before
    assert main(["train", "digits-cnn", *RECIPE, "--data", str(awkward), "--out", f"{out}2"]) == 2
    assert f"/{BAD}: empty" in utf8[1].getvalue().removeprefix(before).decode()


def test_tensorboard_s_folder_must_be_utf8(awkward: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tensorboard")
    utf8 = terminal(monkeypatch)
    words = ["train", "digits-cnn", "execution.tensorboard=true", "--out", str(awkward / "run")]
    assert main(words) == 2
    assert r"d\xfdta/run/tensorboard: tensorboard writes into folders with names in UTF-8 alone" in (
        utf8[1].getvalue().decode()
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (os.fsdecode(b"\xffa\xc3\xa9.jpg"), r"\xffaé.jpg"),
        ("two\nlines\r\x1b[31m\u2028", r"two\nlines\r\x1b[31m\u2028"),
        ("\ud800 of JSON", r"\ud800 of JSON"),
        ("猫 and \\xff as it is", "猫 and \\xff as it is"),
    ],
)
def test_a_name_is_written_in_one_way_and_in_one_line(name: str, written: str):
    assert shown(name) == shown(shown(name)) == written
    error = DataError(f"{name}: cannot be read")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == f"{written}: cannot be read"


def test_runs_in_such_folders_are_compared_reported_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Final weights were "not comparable: ... not valid UTF-8", documents held lone surrogates, lines broke in two."""
    utf8 = terminal(monkeypatch)
    words = ["train", *SMALL, "epochs=0.2", "numerics.exact=true", "--out"]  # whose bits hang on no trial of passes
    runs = [str(tmp_path / name) for name in ("out\udcff", "out\nline")]

    def told(*arguments: str) -> str:
        utf8[0].truncate(0)
        utf8[0].seek(0)
        assert main([*arguments]) == 0
        return utf8[0].getvalue().decode()

    assert json.loads(told(*words, runs[0], "--json"))["folder"] == str(tmp_path / r"out\xff")
    assert told(*words, runs[1]).endswith(f"; {tmp_path}/out\\nline\n")
    assert "final weights: equal" in told("compare", *runs)
    assert json.loads(told("report", runs[0], "--json"))["report"] == str(tmp_path / r"out\xff" / "report.html")
    assert told("report", runs[1]) == f"{tmp_path}/out\\nline/report.html\n"
    notes.note(f"{runs[1]}: noted")
    assert utf8[1].getvalue().decode().endswith(f"note: {tmp_path}/out\\nline: noted\n")


def test_a_table_holds_such_names(tmp_path: Path):
    write_table(tmp_path / "table.csv", [{"name": "way \udcff", "lines": "a\nb"}])
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == 'name,lines\nway \\xff,"a\nb"\n'
