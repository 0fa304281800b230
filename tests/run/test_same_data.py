"""A run goes on, and a study counts its runs, only with the data that they began with, wherever these lie."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.datafiles import tree
from support.dues import After
from support.pictures import noise, write_set
from support.worlds import in_processes

import batchscale
from batchscale.cli import main
from batchscale.data import Dataset, Reading, open_dataset
from batchscale.data.contents import difference
from batchscale.data.folders import entries
from batchscale.data.folders.entries import Names
from batchscale.errors import CheckpointError, DataError
from batchscale.launch import processes as launch
from batchscale.records.files import write_json
from batchscale.run.compare import compare
from batchscale.run.fingerprint import check_same_data
from batchscale.training.due import DUES

RECIPE = """\
data: {name: folder, augment: {crop: scale-aspect, size: 32, flip: true}}
model: {name: cnn}
minibatch: {workers: 2, per_worker: 4}
epochs: 2
learning_rate: {reference: 0.1, reference_minibatch: 256}
numerics: {exact: true}
execution: {device: cpu, log_steps: 1}
"""
OWN = {
    "model": {"name": "cnn"},
    "minibatch": {"workers": 2, "per_worker": 4},
    "epochs": 2,
    "learning_rate": {"reference": 0.1, "reference_minibatch": 256},
    "execution": {"device": "cpu"},
}
ADDED = "train/n01440764/new.JPEG"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 6 validation images, the recipe, a list of 16 of them, the packed forms."""
    root = write_set(tmp_path_factory.mktemp("set") / "images", train=8, val=2)
    (root / "recipe.yaml").write_text(RECIPE)
    names = sorted(p.name for p in (root / "train").rglob("*.JPEG"))[:16]
    (root / "list.txt").write_text("\n".join(names))
    for form, words in (("packed", ()), ("smaller", ("--short-side", "40"))):
        prepared = ["data", "prepare", "folder", "--data", str(root), "--out", str(root.parent / form), *words]
        assert main(prepared) == 0
    return root


def train(images: Path, data: Path, out: Path, *overrides: str, resume: str = "no") -> batchscale.Result:
    return batchscale.train(images / "recipe.yaml", overrides, data_folder=data, out=out, resume=resume, quiet=True)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch):
    """stop(): the next run ends after its first step, with a checkpoint."""

    def stopped(course):
        course.save()
        monkeypatch.undo()
        raise KeyboardInterrupt

    return lambda: monkeypatch.setitem(DUES, "stop", lambda _: After(lambda course: True, stopped))


@pytest.fixture
def begun(images: Path, tmp_path: Path, stop):
    """begun(*overrides) -> the folder of a run of one step."""

    def begin(*overrides: str) -> Path:
        stop()
        with pytest.raises(KeyboardInterrupt):
            train(images, images, tmp_path / "run", *overrides)
        return tmp_path / "run"

    return begin


@pytest.fixture
def moved(images: Path, tmp_path: Path) -> Path:
    """The same images in another place."""
    return shutil.copytree(images, tmp_path / "moved")


def kept(out: Path) -> dict[str, bytes | None]:
    return {name: content for name, content in tree(out).items() if not name.endswith(".lock")}


def add(root: Path) -> None:
    noise(60, 80, seed=5).save(root / ADDED, "JPEG")


def another_class(root: Path) -> None:
    first = sorted((root / "train/n02119789").iterdir())[0]
    first.rename(root / "train/n01440764" / first.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, "training images: 24 there, 25 here;"),
        (lambda root: (root / "train/n01440764/n01440764_0.JPEG").unlink(), "training images: 24 there, 23 here;"),
        (
            lambda root: (root / "train/n01440764/n01440764_0.JPEG").rename(root / ADDED),
            "images (names differ);",
        ),
        (another_class, "other training images (labels and names differ);"),
        (
            lambda root: (root / "val/n01440764/n01440764_0.JPEG").unlink(),
            "data: test images: 6 there, 5 here;",
        ),
    ],
)
def test_a_resume_with_other_files_is_refused_in_one_line(images, moved, begun, capsys, change, said):
    out = begun()
    change(moved)
    before = kept(out)
    capsys.readouterr()
    command = ["train", str(images / "recipe.yaml"), "--data", str(moved), "--out", str(out), "--resume"]
    assert main(command) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
    assert "another --out DIR (nothing was changed)" in line
    assert kept(out) == before
    with pytest.raises(CheckpointError, match="holds a run on other data"):
        train(images, moved, out, resume="auto")
    assert kept(out) == before


def test_other_files_are_refused_before_any_process_starts(images, moved, begun, capsys, monkeypatch):
    out = begun()
    add(moved)
    monkeypatch.setattr(launch, "launch", None)
    command = ["train", str(images / "recipe.yaml"), "--data", str(moved), "--out", str(out), "--resume"]
    assert main([*command, "--processes", "2"]) == 2
    assert "24 there, 25 here" in capsys.readouterr().err


def test_a_list_that_was_cut_is_other_data(images, moved, begun):
    """The list's path is the recipe's, its lines are not."""
    names = moved / "list.txt"
    out = begun(f"data.subset={names}")
    whole = names.read_text()
    names.write_text("\n".join(whole.split("\n")[:15]))
    with pytest.raises(CheckpointError, match="training images: 16 there, 15 here"):
        train(images, images, out, f"data.subset={names}", resume="yes")
    names.write_text("\n".join([*whole.split("\n")[:15], sorted((images / "train/n02119789").iterdir())[-1].name]))
    with pytest.raises(CheckpointError, match=r"other training images \(labels and names differ\)"):
        train(images, images, out, f"data.subset={names}", resume="yes")
    names.write_text("\n".join(reversed(whole.split("\n"))))
    assert train(images, images, out, f"data.subset={names}", resume="yes").status == "done"


@pytest.mark.parametrize("chosen", ["", "data.holdout=4"])
def test_the_same_images_elsewhere_and_packed_are_the_same_run(images, moved, begun, tmp_path, chosen):
    overrides = (chosen,) * bool(chosen)
    straight = train(images, images, tmp_path / "straight", *overrides)
    out = begun(*overrides)
    again = shutil.copytree(out, tmp_path / "again")
    shutil.copytree(moved / "train", moved / "kept")  # beside the parts: not of the set
    assert train(images, moved, out, *overrides, resume="yes").weights_sha256 == straight.weights_sha256
    packed = train(images, images.parent / "packed", again, *overrides, resume="yes")
    assert packed.weights_sha256 == straight.weights_sha256


def test_images_made_smaller_are_others(images, begun):
    words = "training form: their own bytes there, short side 40, JPEG quality 90 here"
    with pytest.raises(CheckpointError, match=words):
        train(images, images.parent / "smaller", begun(), resume="yes")


def test_packed_bytes_that_changed_under_their_names_are_seen_by_the_index(images, moved, tmp_path):
    (moved / "train/n01440764/n01440764_0.JPEG").write_bytes(b"")
    add(moved)
    (moved / ADDED).rename(moved / "train/n01440764/n01440764_0.JPEG")
    assert main(["data", "prepare", "folder", "--data", str(moved), "--out", str(tmp_path / "altered")]) == 0
    roots = (images, images.parent / "packed", tmp_path / "altered")
    folder, packed, altered = (open_dataset("folder", root, Reading(32)).contents for root in roots)
    assert difference(folder, packed, ("", "")) == difference(folder, altered, ("", "")) == ""
    assert difference(packed, altered, ("", "")) == "other training images (bytes differ)"
    check_same_data([folder, packed, folder, packed])
    with pytest.raises(DataError, match=r"rank 2 has .*: other training images \(bytes differ\)"):
        check_same_data([folder, packed, altered])


def test_a_run_of_an_older_version_goes_on_and_is_recorded_from_then_on(images, moved, begun, stop):
    out = begun()
    record = json.loads((out / "environment.json").read_text())
    del record["data"]
    write_json(out / "environment.json", record)
    add(moved)
    stop()
    with pytest.raises(KeyboardInterrupt):
        train(images, moved, out, resume="yes")
    with pytest.raises(CheckpointError, match="training images: 25 there, 24 here"):
        train(images, images, out, resume="yes")


def test_a_finished_run_is_told_only_with_its_own_data(images, moved, tmp_path, capsys):
    train(images, images, tmp_path / "run")
    train(images, moved, tmp_path / "same")
    assert compare(tmp_path / "run", tmp_path / "same")["data"] == "equal"
    command = ["train", str(images / "recipe.yaml"), "--data", str(moved), "--out", str(tmp_path / "run"), "--resume"]
    add(moved)
    train(images, moved, tmp_path / "other")
    main(["compare", str(tmp_path / "run"), str(tmp_path / "other")])
    assert "other data: training images: 24 first, 25 second\n" in capsys.readouterr().out
    assert main(command) == 2
    assert "24 there, 25 here" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="24 there, 25 here"):
        train(images, moved, tmp_path / "run", resume="auto")
    shutil.rmtree(moved / "train")
    assert main(command) == 0
    said = capsys.readouterr()
    assert "was finished before" in said.out
    assert "not compared with the data at hand" in said.err


def own(floating: bool = False) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 2, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (60,), generator=generator)
    pixels = pixels / 255 if floating else pixels
    return Dataset("mine", pixels[:40], labels[:40], pixels[40:], labels[40:], 4)


def altered(data: Dataset, name: str) -> Dataset:
    tensor = getattr(data, name).clone()
    tensor.view(-1)[3] = 1 - tensor.view(-1)[3].clamp(0, 1)
    return replace(data, **{name: tensor})


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train_images", r"other training images \(pixels differ\)"),
        ("train_labels", r"other training images \(labels differ\)"),
        ("test_images", r"on other data: other test images \(pixels differ\)"),
    ],
)
def test_ones_own_tensors_count_to_the_last_byte(tmp_path, stop, floating, name, said):
    data = own(floating)
    stop()
    with pytest.raises(KeyboardInterrupt):
        batchscale.train(OWN, data=data, out=tmp_path / "run", quiet=True)
    with pytest.raises(CheckpointError, match=said):
        batchscale.train(OWN, data=altered(data, name), out=tmp_path / "run", resume="yes", quiet=True)
    strided = replace(data, train_images=data.train_images.contiguous(memory_format=torch.channels_last))
    assert batchscale.train(OWN, data=strided, out=tmp_path / "run", resume="yes", quiet=True).status == "done"
    with pytest.raises(CheckpointError, match=said):
        batchscale.train(OWN, data=altered(data, name), out=tmp_path / "run", resume="auto", quiet=True)


def _differing(rank: int, overrides: tuple[str, ...]) -> str:
    data = own()
    try:
        batchscale.train(OWN, overrides, data=altered(data, "train_images") if rank else data, quiet=True)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("exact", ["false", "true"])
def test_processes_with_different_data_are_refused(exact):
    said = in_processes(2, _differing, (f"numerics.exact={exact}",))
    assert said[0] == said[1]
    assert said[0].startswith("rank 1 has other data than the ranks before it: other training images (pixels differ);")


def test_a_study_counts_no_run_on_other_data(images, moved, tmp_path, capsys):
    out = tmp_path / "study"

    def grid(data: Path, *more: str) -> int:
        capsys.readouterr()
        asked = ["study", "grid", str(images / "recipe.yaml"), "--data", str(data), "--out", str(out), "--way", "a:"]
        return main([*asked, "--seeds", "1", *more])

    assert grid(images) == 0
    runs = kept(out / "runs")
    assert grid(moved) == grid(images.parent / "packed") == 0
    assert kept(out / "runs") == runs
    before = kept(out)
    add(moved)
    for more in ((), ("--way", "b: epochs=1")):  # nothing to run, and one more
        assert grid(moved, *more) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "training images: 24 there, 25 here" in line
        assert "another --out DIR" in line
        assert kept(out) == before
    shutil.rmtree(moved / "train")
    assert grid(moved) == 0
    assert "not compared with the data at hand" in capsys.readouterr().err
    assert kept(out / "runs") == runs


def test_last_parts_of_names_in_any_order_and_over_the_seams(monkeypatch):
    monkeypatch.setattr(entries, "_AT_ONCE", 3)
    texts = [b"a.png", b"b/c.png", b"d/e/ff.png", b"ggg.png", b"h/i.png", b"j", b"k/l"]
    names = Names.of([b"".join(texts)], [np.array([len(t) for t in texts])])
    for chosen in ([0, 1, 2, 3, 4, 5, 6], [6, 1, 1, 0, 5], []):
        blocks = list(names.last_parts(np.array(chosen, np.int64)))
        wanted = [texts[i].split(b"/")[-1] for i in chosen]
        assert b"".join(block.tobytes() for block in blocks[1::2]) == b"".join(wanted)
        assert [n for lengths in blocks[::2] for n in lengths.tolist()] == [len(w) for w in wanted]


def test_no_file_is_touched(moved):
    opened = open_dataset("folder", moved, Reading(32))
    found = open_dataset("folder", moved, Reading(32)).contents
    shutil.rmtree(moved)
    assert opened.contents == found
