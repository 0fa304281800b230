"""Checking image folders, and the packed form: the same pixels, never half there, every change noticed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.datafiles import IDX_NAMES, refused, tree
from support.pictures import jpeg, noise, write_set

from batchscale.cli import main
from batchscale.data import Reading, open_dataset
from batchscale.data.folders import packed as packing

SMALL = Reading(size=16)
WNIDS = ["n01440764", "n01443537", "n02119789"]


def spoil(root: Path) -> dict[str, str]:
    """Bad and unusual files in a small set; path -> what is to be said of the bad ones."""
    folder = root / "train" / WNIDS[0]
    whole = jpeg(noise(40, 50))
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    wide = io.BytesIO()
    Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)).save(wide, "PNG")
    cmyk = io.BytesIO()
    noise(40, 50).convert("CMYK").save(cmyk, "JPEG")
    for name, content in {
        "grey": jpeg(noise(40, 50), "grey"),
        "cmyk": cmyk.getvalue(),
        "middle": bytes(middle),
    }.items():
        (folder / f"{name}.JPEG").write_bytes(content)
    (folder / "deep.png").write_bytes(wide.getvalue())
    (folder / "notes.txt").write_text("no image")
    bad = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no image"}
    for name, content in bad.items():
        (folder / f"{name}.JPEG").write_bytes(content)
    (root / "val" / WNIDS[1] / "gone.JPEG").symlink_to(root / "nowhere")
    reasons = {"cut": "truncated", "empty": "empty", "text": "no image"}
    messages = {str(folder / f"{name}.JPEG"): reason for name, reason in reasons.items()}
    return {**messages, str(root / "val" / WNIDS[1] / "gone.JPEG"): "cannot be read"}


def test_check_names_bad_files_and_counts_the_unusual(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path, 2, 1)
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 0
    assert "train: 6 images, 2 to 2 a class, sides 60 to 80; 0 bad" in capsys.readouterr().out
    bad = spoil(tmp_path)
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "4 files cannot be read" in err
    assert err.count("\n") == 1
    for path, reason in bad.items():
        assert f"bad: {path}: {reason}" in out or f"bad: {path}: image file is {reason}" in out
    assert main(["data", "check", "folder", "--data", str(tmp_path), "--json"]) == 2
    train = json.loads(capsys.readouterr().out)["data"][0]["train"]
    assert train["images_per_class"] == [9, 2, 2]
    assert train["kinds"] == {"16 bits": 1, "CMYK": 1, "grey": 1}
    assert train["other_files"] == 1
    assert list(train["damaged"]) == [str(tmp_path / "train" / WNIDS[0] / "middle.JPEG")]


def checked(capsys: pytest.CaptureFixture[str], *names: str, data: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of a check that ends with 2, and its one line on standard error."""
    assert main(["data", "check", *names, "--data", str(data), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return json.loads(captured.out)["data"], captured.err


def test_check_tells_every_fault_of_the_folders_and_every_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path, 2, 1)
    bad = spoil(tmp_path)
    (tmp_path / "val" / WNIDS[2]).rename(tmp_path / "val" / "n09")
    (tmp_path / "train" / "n00").mkdir()
    loop = tmp_path / "train" / WNIDS[1] / "loop"
    loop.symlink_to(loop.parent)
    (row,), err = checked(capsys, "folder", data=tmp_path)
    wanted = (
        "a link leads back", "1 of 4 class folders without an image: n00",
        f"val lacks n00, {WNIDS[2]}; train lacks n09",
    )  # fmt: skip
    assert len(row["faults"]) == len(wanted)
    for words in wanted:
        assert sum(words in fault for fault in row["faults"]) == 1
    assert {**row["train"]["bad"], **row["val"]["bad"]}.keys() == bad.keys()
    assert row["val"]["images"] == 4  # those of the class that train lacks, too
    assert f"data folder in {tmp_path}: 3 faults of the whole and 4 files that cannot be read, named above" in err
    assert main(["data", "check", "folder", "--data", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert all(f"fault: {fault}" in out for fault in row["faults"])
    assert all(f"bad: {path}: " in out for path in bad)


def test_check_looks_at_what_there_is_where_a_part_or_its_labels_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_set(tmp_path, 2, 1)
    shutil.rmtree(tmp_path / "val")
    (row,), err = checked(capsys, "folder", data=tmp_path)
    assert (row["train"]["images"], row["val"]["images"]) == (6, 0)
    assert "holds no validation folder" in err
    (tmp_path / "val").mkdir()
    for name in ("a.JPEG", "b.JPEG"):
        (tmp_path / "val" / name).write_bytes(jpeg(noise(9, 9)) if name == "a.JPEG" else b"")
    (row,), err = checked(capsys, "folder", data=tmp_path)
    assert (row["val"]["images"], list(row["val"]["bad"].values())) == (2, ["empty"])
    assert "1 fault of the whole and 1 file that cannot be read, named above; the first: " in err
    (tmp_path / "val.txt").write_text("a.JPEG n09\n")
    faults = checked(capsys, "folder", data=tmp_path)[0][0]["faults"]
    assert len(faults) == 2
    assert "(1 such file)" in faults[0]
    assert "no label for b.JPEG (1 of 2 images)" in faults[1]
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    (row,), err = checked(capsys, "folder", data=tmp_path)
    assert "train: holds no class folders" in row["faults"][0]
    assert row["val"]["images"] == 2


def test_check_goes_on_with_the_next_set_and_names_every_damaged_official_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mnist").mkdir()
    for name in IDX_NAMES[:2]:
        (tmp_path / "mnist" / name).write_bytes(b"damaged")
    rows, err = checked(capsys, "imagenet", "mnist", "digits", data=tmp_path)
    assert [len(row["faults"]) for row in rows] == [1, 3, 0]
    assert "2 of 4 files missing" in rows[1]["faults"][0]
    assert [IDX_NAMES[i] in rows[1]["faults"][i + 1] for i in range(2)] == [True, True]
    assert "no folder with train/<class>/<image>" in err
    assert "data mnist: 3 faults of the whole, named above; the first: " in err
    assert main(["data", "check", "digits"]) == 0


def test_packed_pixels_are_those_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path / "set", 5, 2)
    files = tree(tmp_path)
    assert main(["data", "prepare", "folder", "--data", str(tmp_path / "set")]) == 0
    into = tmp_path / "set-packed"
    assert str(into) in capsys.readouterr().out
    assert sorted(p.name for p in into.iterdir()) == ["train.images", "train.index", "val.images", "val.index"]
    assert {name: content for name, content in tree(tmp_path).items() if "packed" not in name} == files
    plain, packed = open_dataset("folder", tmp_path / "set", SMALL), open_dataset("folder", into, SMALL)
    for ours, theirs in ((packed.train, plain.train), (packed.test, plain.test)):
        assert all(torch.equal(a, b) for a, b in zip(ours.part(slice(None)), theirs.part(slice(None)), strict=True))
    listed = tmp_path / "list.txt"
    listed.write_text(f"{WNIDS[1]}_2.JPEG\n")
    assert open_dataset("folder", into, Reading(subset=listed)).train.labels.tolist() == [1]
    assert main(["data", "check", "folder", "--data", str(into)]) == 0
    assert main(["data", "prepare", "folder", "--data", str(into)]) == 0
    assert "already" in capsys.readouterr().out
    untouched = tree(into)
    assert main(["data", "prepare", "folder", "--data", str(tmp_path / "set")]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert tree(into) == untouched


def test_smaller_images_have_the_short_side_asked_for(tmp_path: Path):
    write_set(tmp_path / "set", 2, 1)
    (tmp_path / "set" / "train" / WNIDS[0] / "small.JPEG").write_bytes(small := jpeg(noise(20, 90)))
    arguments = ["--out", str(tmp_path / "out"), "--short-side", "32", "--quality", "80"]
    assert main(["data", "prepare", "folder", "--data", str(tmp_path / "set"), *arguments]) == 0
    train = open_dataset("folder", tmp_path / "out", SMALL).train
    read = [train.entries.read(i) for i in range(len(train))]
    assert small in read
    assert [min(Image.open(io.BytesIO(data)).size) for data in read if data != small] == [32] * 6


def test_packing_stops_at_a_bad_file_or_leaves_it_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path / "set", 2, 2)
    bad = spoil(tmp_path / "set")
    command = ["data", "prepare", "folder", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "gone.JPEG" in (err := capsys.readouterr().err)
    assert "--skip-bad" in err
    assert [*(tmp_path / "out").iterdir()] == []
    assert main([*command, "--skip-bad", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["data"][0]["left_out"]) == set(bad)
    data = open_dataset("folder", tmp_path / "out", SMALL)
    assert data.train.labels.bincount().tolist() == [6, 2, 2]
    assert len(data.train.part(slice(None))[1]) == 10


def test_a_bad_training_file_leaves_nothing_half_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path / "set", 2, 2)
    bad, out = tmp_path / "set" / "train" / WNIDS[2] / f"{WNIDS[2]}_1.JPEG", tmp_path / "out"
    whole = bad.read_bytes()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    bad.write_bytes(b"")
    command = ["data", "prepare", "folder", "--data", str(tmp_path / "set"), "--out", str(out)]
    assert main(command) == 2
    assert str(bad) in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["notes.txt"]
    bad.write_bytes(whole)
    assert main(command) == 0
    untouched = tree(out)
    assert main(command) == 2
    assert tree(out) == untouched


@pytest.fixture
def packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    write_set(tmp_path / "set", 4, 1)
    assert main(["data", "prepare", "folder", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def test_a_truncated_or_altered_packed_file_is_noticed(packed: Path, capsys: pytest.CaptureFixture[str]):
    index, images = packed / "train.index", packed / "train.images"
    good = {path: path.read_bytes() for path in (index, images)}
    rng = np.random.default_rng(0)
    for path, position in [(index, int(a)) for a in rng.integers(0, len(good[index]), 20)]:
        path.write_bytes(good[path][:position] + bytes([good[path][position] ^ 1]) + good[path][position + 1 :])
        with refused(str(index)):
            open_dataset("folder", packed, SMALL)
    for cut in (0, 10, 40, 500, len(good[index]) - 1):
        index.write_bytes(good[index][:cut])
        with refused(str(index)):
            open_dataset("folder", packed, SMALL)
    index.write_bytes(good[index])
    images.write_bytes(good[images][:-1])
    with refused(str(images), "truncated"):
        open_dataset("folder", packed, SMALL)
    position = len(good[images]) // 2
    images.write_bytes(good[images][:position] + bytes([good[images][position] ^ 1]) + good[images][position + 1 :])
    for skip_bad in (False, True):  # the rest of the file cannot be trusted either
        with refused(str(images), "altered since it was packed", "JPEG") as error:
            open_dataset("folder", packed, Reading(size=16, skip_bad=skip_bad)).train.part(slice(None))
        assert "skip_bad" not in str(error.value)
    assert main(["data", "check", "folder", "--data", str(packed)]) == 2
    assert "1 fault of the whole and 1 file that cannot be read" in (err := capsys.readouterr().err)
    assert "another SHA256" in err
    images.unlink()
    (row,), err = checked(capsys, "folder", data=packed)
    assert (row["train"]["images"], row["val"]["images"]) == (0, 3)
    assert "train.index: cannot be opened" in err
    with refused("train.index", "cannot be opened"):
        open_dataset("folder", packed, SMALL)


def test_chunks_are_checked_each(packed: Path, monkeypatch: pytest.MonkeyPatch):
    """More than one chunk: hashes over all of them, the message names the right one."""
    entries = packing.PackedEntries(packed / "train.index")
    assert len(entries.header["sha256"]) == 1
    entries.verify()
    monkeypatch.setattr(packing, "CHUNK_BYTES", 1000)
    with refused("bytes 0 and on"):
        entries.verify()


def test_no_packed_form_is_written_among_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_set(tmp_path / "set")
    untouched = sorted(tmp_path.rglob("*"))
    for part in ("train", "val"):
        inside = tmp_path / "set" / part / "x" / "y"
        assert main(["data", "prepare", "folder", "--data", str(tmp_path / "set"), "--out", str(inside)]) == 2
        assert "whose folders are classes; give a DIR beside it" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == untouched


def test_options_of_packing_are_refused_elsewhere(capsys: pytest.CaptureFixture[str]):
    for arguments in (
        ["digits", "--skip-bad"],
        ["folder", "--quality", "80"],
        ["folder", "--short-side", "9", "--quality", "101"],
    ):
        assert main(["data", "prepare", *arguments]) == 2
        assert capsys.readouterr().err.startswith("batchscale: --")
