"""Where labels are from: lists and folders that contradict each other, and what is told of a list that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.datafiles import refused
from support.pictures import PICTURE, write_classes, write_flat

from batchscale.cli import main
from batchscale.data import Reading, open_dataset


def labels(root: Path, choice: str | None = None) -> list[int]:
    return open_dataset("folder", root, Reading(size=8, labels=choice)).test.labels.tolist()


AB = ["a.jpg", "b.jpg"]


def checked(root: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["data", "check", "folder", "--data", str(root), "--json"]) == code
    row: dict[str, Any] = json.loads(capsys.readouterr().out)["data"][0]
    return row


def test_a_list_that_is_no_utf8_is_told_to_be_saved_as_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Before, its word was shown as "d\\udcf6g", and nothing said why."""
    write_flat(tmp_path, ["cat", "dög"], AB, "a.jpg cat\nb.jpg dög\n".encode("latin-1"))
    with refused("gives b.jpg the class 'd\\xf6g'", "it is no text in UTF-8: save it as UTF-8"):
        labels(tmp_path)
    (fault,) = checked(tmp_path, capsys, 2)["faults"]
    assert "'d\\xf6g'" in fault
    (tmp_path / "val.txt").write_bytes("ä.jpg cat\nb.jpg cat\n".encode("latin-1"))
    with refused(r"first line 1 ('\xe4.jpg cat')", "save it as UTF-8"):
        labels(tmp_path)


def test_two_lists_that_contradict_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Before, the first was taken without a word."""
    first = write_flat(tmp_path, ["cat", "dog"], AB, "a.jpg cat\nb.jpg dog\n", "val_labels.txt")
    second = tmp_path / "val.txt"
    second.write_text("b.jpg 0\na.jpg 1\n")
    with refused(f"{first} and {second}: give a.jpg two classes, train/cat and train/dog", "remove the list"):
        labels(tmp_path)
    for content in ("b.jpg 1\na.jpg 0\n", "b.jpg lion\na.jpg dog\n"):  # the same, and of other classes
        second.write_text(content)
        assert labels(tmp_path) == [0, 1]
        row = checked(tmp_path, capsys)
        assert row["val"]["passed_over"]["list of labels beside the one used"]["such_as"] == ["val.txt"]
        assert row["notes"] == [
            f"labels of the validation part are those of {first}, its words read as names of classes"
        ]
    passed = open_dataset("folder", tmp_path, Reading(size=8)).passed_over
    assert passed == "val: 1 list of labels beside the one used (val.txt)"
    second.unlink()
    second.symlink_to(first)
    assert not checked(tmp_path, capsys)["val"]["passed_over"]
    first.rename(tmp_path / "val.txt")
    second.write_text("a.jpg 0\nb.jpg 1\n")
    assert "read as labels from 0" in checked(tmp_path, capsys)["notes"][0]


def test_a_list_beside_class_folders_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part in ("train", "val"):
        write_classes(tmp_path / part, {"cat": 1, "dog": 1}, 9, 12)
    (tmp_path / "val_labels.txt").write_text("cat/v0.jpg dog\n")
    passed = checked(tmp_path, capsys)["val"]["passed_over"]
    assert passed["list of labels, as there are class folders"]["such_as"] == ["val_labels.txt"]
    named = open_dataset("folder", tmp_path, Reading(size=8)).passed_over
    assert named == "val: 1 list of labels, as there are class folders (val_labels.txt)"


def test_validation_folders_that_are_read_as_numbers_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_classes(tmp_path / "train", dict.fromkeys(("cat", "dog", "emu"), 1), 9, 12)
    write_classes(tmp_path / "val", dict.fromkeys("012", 1), 9, 12)
    (note,) = checked(tmp_path, capsys)["notes"]
    assert note.endswith(f"{tmp_path / 'val'}, its class folders read as labels from 0")


def test_labels_of_numbered_folders_in_the_order_of_text_are_refused(tmp_path: Path):
    """Before, val/0 was train/10 without a word."""
    write_classes(tmp_path / "train", dict.fromkeys(("8", "9", "10"), 1), 9, 12)
    write_classes(tmp_path / "val", {"0": 1, "1": 2, "2": 3}, 9, 12)
    two = "0 is train/10 in the order of the folders' names as text, train/8 in the order of their numbers"
    with refused("two ways", two, "data.labels=numbers"):
        labels(tmp_path)
    assert labels(tmp_path, "numbers") == [0, 1, 1, 2, 2, 2]
    (tmp_path / "val").rename(tmp_path / "old")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "val.txt").write_text("a.jpg 0")
    with refused("val.txt", "two ways", two):
        labels(tmp_path)
    assert labels(tmp_path, "numbers") == [0]


@pytest.mark.parametrize(
    ("content", "choice", "message"),
    [
        ("a.jpg cat\nb.jpg 1\n", None, "'1': is a number, and 'cat' a class's name: all words must be read in one way"),
        ("a.jpg cat\nb.jpg 1\n", "names", "'1': no class folder of train has that name (1 such file); correct"),
        ("a.jpg 0\nb.jpg 2\n", "numbers", "'2': must be a label in 0..1, by data.labels=numbers"),
        ("a.jpg 1\nb.jpg 2\n", None, "'2': is beyond the labels 0..1, which are counted from 0, not from 1"),
    ],
)
def test_a_word_that_is_no_class_is_told_by_the_rule_that_it_breaks(
    tmp_path: Path, content: str, choice: str | None, message: str
):
    write_flat(tmp_path, ["cat", "dog"], AB, content)
    with refused(message):
        labels(tmp_path, choice)


@pytest.mark.parametrize(
    ("files", "line"),
    [(AB, "val/a.jpg cat"), (AB, "cat a.jpg"), (["a.jpg", "a.png"], "a cat"), (["A.JPG", "b.jpg"], "a.jpg cat")],
)
def test_lines_that_name_no_image_are_told_with_the_form_of_one_that_would(tmp_path: Path, files: list[str], line: str):
    write_flat(tmp_path, ["cat", "dog"], files, f"{line}\n")
    with refused("(2 of 2 images)", f"first line 1 ('{line}'): must be '{files[0]} CLASS'", "without folders"):
        labels(tmp_path)


def test_other_files_that_cannot_be_read_are_told_in_words(tmp_path: Path):
    """Before, scipy's and the system's raw values were in the line."""
    listed = write_flat(tmp_path, ["cat", "dog"], AB, "1\n2\n", "ILSVRC2012_validation_ground_truth.txt")
    (tmp_path / "meta.mat").write_bytes(b"no table" * 40)
    with refused(f"{listed.parent / 'meta.mat'}: not the devkit's table of synsets (damaged, or another file)"):
        labels(tmp_path)
    (tmp_path / "train.index").write_bytes(b"")
    with refused("train.index: cannot be opened with its .images (empty)"):
        labels(tmp_path)
    (tmp_path / "train.index").write_bytes(b"x")
    with refused("train.index: cannot be opened with its .images (No such file or directory)"):
        labels(tmp_path)
