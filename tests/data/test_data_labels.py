"""Labels of validation images are read in one way or refused; lists as editors and systems write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.datafiles import refused
from support.pictures import PICTURE, write_classes, write_flat

from batchscale.build.inputs import load_data
from batchscale.cli import main
from batchscale.data import Reading, open_dataset
from batchscale.recipe import load_recipe

CATS = ["house cat", "tiger", "tiger cat", "tiger, white"]


def labels(root: Path, choice: str | None = None) -> list[int]:
    return open_dataset("folder", root, Reading(size=8, labels=choice)).test.labels.tolist()


ABC = ["a.jpg", "b.jpg", "c.jpg", "my d.jpg"]
ROWS = [("a.jpg", "tiger cat"), ("b.jpg", "tiger"), ("c.jpg", "house cat"), ("my d.jpg", "tiger, white")]


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", ";"])
def test_a_class_name_is_read_whole(tmp_path: Path, separator: str):
    """On 91b3349 "tiger cat" was read as "tiger"."""
    write_flat(tmp_path, CATS, ABC, "\n".join(separator.join(row) for row in ROWS))
    assert labels(tmp_path) == [2, 1, 0, 3]


@pytest.mark.parametrize(
    "content",
    [
        "\ufefffile,class\r\n" + "".join(f'"{file}","{word}"\r\n' for file, word in ROWS),
        "".join(f"{file}\t{word} \r\n" for file, word in ROWS),
        "\r".join(f'{file};"{word}"' for file, word in ROWS),
        "\ufeff" + "\r\n".join(f"{Path(file).stem} {word}" for file, word in ROWS),
        '\ufefftiger cat\r\ntiger\r\nhouse cat\r\n"tiger, white"\r\n',
    ],
    ids=["quoted with a mark", "tabs", "old line ends", "stems", "one class a line"],
)
def test_lists_of_other_editors_are_read(tmp_path: Path, content: str):
    write_flat(tmp_path, CATS, ABC, content)
    assert labels(tmp_path) == [2, 1, 0, 3]


def test_names_that_are_no_utf8_are_compared_byte_by_byte(tmp_path: Path):
    listed = write_flat(tmp_path, ["cat", "caf\udce9"], ["\udcff.jpg", "a.jpg"], b"a.jpg cat\n\xff.jpg caf\xe9\n")
    assert labels(tmp_path) == [1, 0]
    listed.write_bytes("a.jpg cat\n\udcff.jpg café\n".encode("utf-8", "surrogateescape"))
    with refused("line 2", r"\xff.jpg", "'café'"):
        labels(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a.jpg tiger".encode("utf-16"), ("is UTF-16", "save it as UTF-8")),
        ("a.jpg tiger".encode("utf-16-le"), ("no text", "save it as UTF-8")),
        (b"a.jpg tiger cat\nb.jpg lion cat\n", ("line 2 gives b.jpg the class 'lion cat'", "1 such file")),
        (b"a.jpg tiger\nb.jpg\n", ("no label for b.jpg", "3 of 4")),
        (b"a.jpg tiger\nb.jpg tiger\na.jpg tiger cat", ("line 1 (", "line 3 (", "a.jpg two classes")),
    ],
)
def test_what_is_wrong_in_a_list_is_named_with_its_place(tmp_path: Path, content: bytes, words: tuple[str, ...]):
    listed = write_flat(tmp_path, CATS, ABC, content)
    with refused(str(listed), *words):
        labels(tmp_path)


def test_a_line_that_can_be_cut_in_two_ways_is_refused(tmp_path: Path):
    listed = write_flat(tmp_path, ["cat", "b cat"], ["a", "a b"], "a cat\na b cat\n")
    (tmp_path / "val" / "a").rename(tmp_path / "val" / "a.jpg")
    (tmp_path / "val" / "a b").rename(tmp_path / "val" / "a b.jpg")
    with refused("line 2 ('a b cat')", "'a.jpg' of the class 'b cat' or 'a b.jpg' of the class 'cat'"):
        labels(tmp_path)
    listed.write_text('a,cat\n"a b","cat"\n')
    assert labels(tmp_path) == [1, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [(["1.jpg", "10.jpg", "2.jpg"], "10.jpg letter by letter, 2.jpg"), (["B.jpg", "a.jpg"], "case")],
)
def test_one_class_a_line_needs_files_of_one_order(tmp_path: Path, files: list[str], message: str):
    write_flat(tmp_path, ["cat", "dog"], files, "cat\n" * len(files))
    with refused("have two", message, "'file class' lines"):
        labels(tmp_path)


def test_numbers_that_are_names_of_other_classes_are_refused(tmp_path: Path):
    """On 91b3349 the labels 0, 1, 2 became 0, 0, 1 for class folders 1, 2, 3."""
    listed = write_flat(tmp_path, ["1", "2", "3"], ABC[:3], "a.jpg 0\nb.jpg 1\nc.jpg 2\n")
    with refused(str(listed), "two ways", "1 as a name is train/1, as a label from 0 it is train/2", "--labels"):
        labels(tmp_path)
    assert labels(tmp_path, "numbers") == [0, 1, 2]
    with refused("line 1 gives a.jpg the class '0'"):
        labels(tmp_path, "names")
    listed.write_text("a.jpg 1\nb.jpg 2\nc.jpg 1\n")
    with refused("two ways"):
        labels(tmp_path)
    assert labels(tmp_path, "names") == [0, 1, 0]
    assert labels(tmp_path, "numbers") == [1, 2, 1]
    listed.write_text("a.jpg 1\nb.jpg 2\nc.jpg 3\n")  # 3 is no label from 0
    assert labels(tmp_path) == [0, 1, 2]


def test_numbers_from_1_are_not_taken_for_numbers_from_0(tmp_path: Path):
    listed = write_flat(tmp_path, ["ant", "bee", "cat"], ABC[:2], "a.jpg 1\nb.jpg 2\n")
    with refused("none is 0", "1 as a label from 0 is train/bee, counted from 1 it is train/ant"):
        labels(tmp_path)
    assert labels(tmp_path, "numbers") == [1, 2]
    listed.write_text("a.jpg 1\nb.jpg 3\n")
    with refused("line 2 gives b.jpg the class '3'", "counted from 0"):
        labels(tmp_path)
    listed.write_text("a.jpg 0\nb.jpg bee\n")
    with refused("line 1 gives a.jpg the class '0'"):
        labels(tmp_path)


def test_validation_folders_that_can_be_read_in_two_ways_are_refused(tmp_path: Path):
    """On 91b3349 val/1 was trained as train/2 without a word."""
    write_classes(tmp_path / "train", dict.fromkeys("123", 1), 9, 12)
    write_classes(tmp_path / "val", {"0": 1, "1": 2, "2": 3}, 9, 12)
    with refused("two ways", "1 as a name is train/1, as a label from 0 it is train/2", "data.labels=numbers"):
        labels(tmp_path)
    assert labels(tmp_path, "numbers") == [0, 1, 1, 2, 2, 2]
    with refused("val lacks 3", "train lacks 0"):
        labels(tmp_path, "names")
    (tmp_path / "val" / "0").rename(tmp_path / "val" / "3")
    assert labels(tmp_path) == labels(tmp_path, "names") == [0, 0, 1, 1, 1, 2]
    with refused("val lacks 0", "train lacks 3", "labels from 0"):
        labels(tmp_path, "numbers")


def test_the_choice_reaches_recipes_check_and_prepare_and_the_packed_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "set"
    write_flat(root, ["1", "2", "3"], ABC[:3], "a.jpg 0\nb.jpg 1\nc.jpg 2\n")
    for action in ("check", "prepare"):
        assert main(["data", action, "folder", "--data", str(root)]) == 2
        assert "two ways" in capsys.readouterr().err
        assert main(["data", action, "folder", "--data", str(root), "--labels", "numbers"]) == 0
    assert main(["data", "check", "digits", "--labels", "names"]) == 2
    small = ["data={name: folder, augment: {size: 8}}"]
    recipe = load_recipe("digits-cnn", [*small, "data.labels=numbers"])
    for folder in (root, tmp_path / "set-packed"):
        assert load_data(recipe, folder).test.labels.tolist() == [0, 1, 2]
    assert load_data(load_recipe("digits-cnn", small), tmp_path / "set-packed").test.labels.tolist() == [0, 1, 2]
    with refused("data.labels=names", "was packed with --labels numbers"):
        load_data(load_recipe("digits-cnn", [*small, "data.labels=names"]), tmp_path / "set-packed")
    capsys.readouterr()
    assert main(["train", "digits-cnn", "data.labels=names"]) == 2
    assert "data.labels is for images on disk" in capsys.readouterr().err


def spread(root: Path) -> None:
    """Class folders with all that may lie beside their images."""
    write_classes(root / "train", {"1": 2, "10": 2, "2": 2, "A": 2, "a": 2}, 9, 12)
    write_classes(root / "val", {"1": 1, "10": 1, "2": 1, "A": 1, "a": 1}, 9, 12)
    (root / "test").mkdir()
    for i in range(4):
        (root / "train" / f"stray{i}.JPG").write_bytes(PICTURE)
    for name in ("train/readme.md", "train/a/.DS_Store", "train/a/clip.gif", "val/stray.png"):
        (root / name).write_bytes(PICTURE)


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """On 91b3349 images beside the class folders were passed over without a word."""
    spread(tmp_path)
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for line in (
        "passed over: 4 x image beside the class folders: stray0.JPG, stray1.JPG, stray2.JPG, ...",
        "passed over: 1 x file beside the class folders: readme.md",
        "passed over: 1 x hidden file: a/.DS_Store",
        "passed over: 1 x file of another kind: a/clip.gif",
        "passed over: 1 x image beside the class folders: stray.png",
        "note: val is the validation part, and test beside it passed over",
        "note: class folders that differ in upper and lower case alone: A, a",
    ):
        assert line in out
    assert main(["data", "check", "folder", "--data", str(tmp_path), "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["data"][0]["train"]
    assert train["passed_over"]["image beside the class folders"]["number"] == 4
    assert train["other_files"] == 1
    passed = open_dataset("folder", tmp_path, Reading(size=8)).passed_over
    assert "4 images beside the class folders (stray0.JPG, stray1.JPG, stray2.JPG, ...)" in passed
    assert "val: 1 image beside the class folders (stray.png)" in passed
    assert main(["data", "prepare", "folder", "--data", str(tmp_path), "--out", str(tmp_path / "packed")]) == 0
    assert "passed over in train: 1 file beside the class folders (readme.md), 4 images" in capsys.readouterr().out
    assert main(["data", "check", "folder", "--data", str(tmp_path / "packed")]) == 0


@pytest.mark.parametrize(
    ("numbers", "message"), [(range(1, 11), "0..9: labels go by their names as text: 1, 10, 2, 3, ..."),
                          ((0, 1, 2, 10), "0..3: labels go by their names as text: 0, 1, 10, 2\n")]
)  # fmt: skip
def test_numbered_folders_that_are_not_0_and_on_are_told_to_be_in_the_order_of_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: list[int], message: str
):
    for part in ("train", "val"):
        write_classes(tmp_path / part, {str(n): 1 for n in numbers}, 9, 12)
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 0
    assert f"note: class folders are numbered, but not {message}" in capsys.readouterr().out


def test_lines_of_a_list_that_name_no_image_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_flat(tmp_path, CATS, ABC[:1], "a.jpg tiger\nb.jpg tiger\nc.jpg tiger\n")
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 0
    assert "2 x line of val.txt that names no image: b.jpg tiger, c.jpg tiger" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b'\xef\xbb\xbfb.jpg\r\n"x/a.jpg"\t\r\n', b"x/a.jpg\rb.jpg"])
def test_a_subset_list_of_another_editor_is_read(tmp_path: Path, content: bytes):
    write_classes(tmp_path / "train", {"x": 0, "y": 1}, 9, 12)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "train" / "x" / name).write_bytes(PICTURE)
    write_classes(tmp_path / "val", {"x": 1, "y": 1}, 9, 12)
    listed = tmp_path / "list.txt"
    listed.write_bytes(content)
    assert len(open_dataset("folder", tmp_path, Reading(size=8, subset=listed)).train) == 2
    for wrong, message in ((b"a.jpg\n\nz.jpg\n", "z.jpg, line 3"), ("a.jpg".encode("utf-16"), "is UTF-16")):
        listed.write_bytes(wrong)
        with refused(f"data.subset={listed}", message):
            open_dataset("folder", tmp_path, Reading(size=8, subset=listed))
