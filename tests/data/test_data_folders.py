"""Image folders as users have them: which file has which label, and every mistake in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from support.datafiles import refused
from support.pictures import jpeg, noise, write_classes, write_set

from batchscale.data import DATASETS, Reading, open_dataset
from batchscale.data.augmentation import Augmentation, crop_draws, mirrored
from batchscale.data.folders.folder_source import FolderSource
from batchscale.data.folders.jpeg import render
from batchscale.data.folders.views import DRAWS, scale_and_aspect

SMALL = Reading(size=16)
WNIDS = ["n01440764", "n01443537", "n02119789"]


def names(images):
    return [os.path.relpath(images.entries.name(i), images.entries.root) for i in range(len(images.entries))]


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path: Path):
    write_set(tmp_path, train=3, val=2)
    (tmp_path / "train" / WNIDS[0] / "notes.txt").write_text("no image")
    (tmp_path / "train" / WNIDS[0] / ".hidden.JPEG").write_text("no image")
    (tmp_path / "train" / WNIDS[1] / "more").mkdir()
    (tmp_path / "train" / WNIDS[1] / "more" / "deep.png").write_bytes(b"")
    data = open_dataset("folder", tmp_path, SMALL)
    assert data.num_classes == 3
    assert data.image_shape == (3, 16, 16)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [name.split("/")[0] for name in names(data.test)] == [wnid for wnid in WNIDS for _ in range(2)]
    expected = sorted(str(p.relative_to(tmp_path / "train")) for p in (tmp_path / "train").glob("*/[n]*.JPEG"))
    expected = sorted([*expected, f"{WNIDS[1]}/more/deep.png"])
    assert names(data.train) == expected


def test_folders_named_by_numbers_are_in_the_order_of_the_numbers(tmp_path: Path):
    write_classes(tmp_path / "train", {str(n): 1 for n in range(11)})
    write_classes(tmp_path / "val", {str(n): 1 for n in range(11)})
    data = open_dataset("folder", tmp_path, SMALL)
    assert [name.split("/")[0] for name in names(data.train)] == [str(n) for n in range(11)]


def test_imagenet_v2_folders_are_labels(tmp_path: Path):
    write_classes(tmp_path / "train", {f"n{n:08}": 1 for n in range(11)})
    write_classes(tmp_path / "val", {str(n): 1 + n % 2 for n in range(11)})
    data = open_dataset("folder", tmp_path, SMALL)
    assert [int(name.split("/")[0]) for name in names(data.test)] == data.test.labels.tolist()
    assert data.test.labels.bincount().tolist() == [1 + n % 2 for n in range(11)]


FLAT = [2, 0, 1, 1]  # labels of ILSVRC2012_val_0000000{1..4}.JPEG


def flat(root: Path) -> Path:
    write_classes(root / "train", dict.fromkeys(WNIDS, 2))
    (root / "val").mkdir()
    for i in range(4):
        (root / "val" / f"ILSVRC2012_val_{i + 1:08}.JPEG").write_bytes(jpeg(noise(30, 40, i)))
    return root


def lines(*rows: str) -> bytes:
    return "\n".join([*rows, ""]).encode()


@pytest.mark.parametrize(
    "files",
    [
        {"val_labels.txt": lines(*(f"ILSVRC2012_val_{i + 1:08}.JPEG {WNIDS[c]}" for i, c in enumerate(FLAT)))},
        {"val.txt": lines(*(f"ILSVRC2012_val_{i + 1:08}.JPEG {c}" for i, c in reversed([*enumerate(FLAT)])))},
        {"LOC_val_solution.csv": lines(
            "ImageId,PredictionString",
            *(f"ILSVRC2012_val_{i + 1:08},{WNIDS[c]} 85 1 499 272" for i, c in reversed([*enumerate(FLAT)])),
        )},
        {"imagenet_2012_validation_synset_labels.txt": lines(*(WNIDS[c] for c in FLAT))},
        {
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": lines("1", "3", "2", "2"),
            "ILSVRC2012_devkit_t12/data/map_clsloc.txt": lines(
                "n02119789 1 kit_fox", "n01443537 2 goldfish", "n01440764 3 tench"
            ),
        },
        {"val/ILSVRC2012_validation_ground_truth.txt": lines("1", "3", "2", "2"), "meta.mat": b""},
    ],
    ids=["wnids", "numbers", "kaggle", "synsets", "devkit text", "devkit mat"],
)  # fmt: skip
def test_a_flat_validation_folder_takes_its_labels_from_a_list(tmp_path: Path, files: dict[str, bytes]):
    flat(tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    if "meta.mat" in files:
        rows = [(1, "n02119789"), (2, "n01443537"), (3, "n01440764"), (4, "n00000000")]
        synsets = np.array(rows, dtype=[("ILSVRC2012_ID", "f8"), ("WNID", object)])
        scipy.io.savemat(tmp_path / "meta.mat", {"synsets": synsets})
    assert open_dataset("folder", tmp_path, SMALL).test.labels.tolist() == FLAT


def test_a_flat_validation_folder_without_right_labels_is_refused(tmp_path: Path):
    flat(tmp_path)
    with refused("no list of their labels", "val_labels.txt", "ground_truth"):
        open_dataset("folder", tmp_path, SMALL)
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n3\n2\n2\n")
    with refused(str(truth), "meta.mat or map_clsloc.txt"):
        open_dataset("folder", tmp_path, SMALL)
    (tmp_path / "map_clsloc.txt").write_text("n02119789 1 a\nn01443537 2 b\n")
    with refused("map_clsloc.txt", "n01440764"):
        open_dataset("folder", tmp_path, SMALL)
    (tmp_path / "meta.mat").write_bytes(b"damaged")
    with refused("meta.mat", "synsets"):
        open_dataset("folder", tmp_path, SMALL)
    listed = tmp_path / "val_labels.txt"
    for content, parts in [
        ("0\n1\n", ("2 lines for the 4 images",)),
        ("ILSVRC2012_val_00000001.JPEG n09999999\n", ("'n09999999'",)),
        ("ILSVRC2012_val_00000001.JPEG 0\n", ("no label for ILSVRC2012_val_00000002.JPEG", "3 of 4")),
        ("", ("0 lines",)),
    ]:
        listed.write_text(content)
        with refused(str(listed), *parts):
            open_dataset("folder", tmp_path, SMALL)


def test_other_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    with refused("data.name='folder'", "no folder, as none is given"):
        open_dataset("folder", None, SMALL)
    with refused("data.name='imagenet'", str(tmp_path / "imagenet"), "--data"):
        open_dataset("imagenet", tmp_path, SMALL)
    (tmp_path / "train").mkdir()
    with refused("holds no class folders"):
        open_dataset("folder", tmp_path, SMALL)
    write_classes(tmp_path / "train", dict.fromkeys(WNIDS, 2))
    with refused("holds no validation folder", "val, validation"):
        open_dataset("folder", tmp_path, SMALL)
    (tmp_path / "val").mkdir()
    with refused(str(tmp_path / "val"), "holds no image"):
        open_dataset("folder", tmp_path, SMALL)
    write_classes(tmp_path / "val", {WNIDS[0]: 1, WNIDS[1]: 1, "n09": 1})
    with refused("differ", f"val lacks {WNIDS[2]}", "train lacks n09"):
        open_dataset("folder", tmp_path, SMALL)
    (tmp_path / "val" / "n09").rename(tmp_path / "val" / WNIDS[2])
    with refused("3 classes", "imagenet has 1000"):
        open_dataset("imagenet", tmp_path, SMALL)
    open_dataset("folder", tmp_path, SMALL)
    next((tmp_path / "val" / WNIDS[2]).iterdir()).unlink()
    with refused("1 of 3 class folders without an image", WNIDS[2]):
        open_dataset("folder", tmp_path, SMALL)


def test_imagenet_is_found_below_the_folder_of_the_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = DATASETS["imagenet"]
    assert isinstance(source, FolderSource)
    monkeypatch.setitem(DATASETS, "imagenet", FolderSource("imagenet", 3, source.mean, source.std, roots=source.roots))
    write_set(tmp_path / "ILSVRC" / "Data" / "CLS-LOC", 2, 1)
    assert len(open_dataset("imagenet", tmp_path, SMALL).train) == 6


def test_a_subset_keeps_file_order(tmp_path: Path):
    write_set(tmp_path, 4, 1)
    listed = tmp_path / "10percent.txt"
    listed.write_text(f"{WNIDS[1]}_2.JPEG\n{WNIDS[0]}_3.JPEG\n\n{WNIDS[1]}/{WNIDS[1]}_0.JPEG\n")
    whole = open_dataset("folder", tmp_path, SMALL)
    data = open_dataset("folder", tmp_path, Reading(size=16, subset=listed))
    assert data.train.labels.tolist() == [0, 1, 1]
    assert len(data.test) == len(whole.test)
    pixels, _ = data.train.part(slice(None))
    expected, _ = whole.train.part(slice(None))
    assert torch.equal(pixels, expected[[3, 4, 6]])
    twin = tmp_path / "train" / WNIDS[2] / f"{WNIDS[0]}_3.JPEG"
    twin.write_bytes(jpeg(noise(20, 20)))
    for content, parts in [
        (f"{WNIDS[0]}_3.JPEG", ("more than one class",)),
        ("n9_1.JPEG\n", ("1 of 1", "n9_1.JPEG")),
        ("", ("empty",)),
    ]:
        listed.write_text(content)
        with refused("data.subset", str(listed), *parts):
            open_dataset("folder", tmp_path, Reading(subset=listed))
    with refused("data.subset", "cannot be read"):
        open_dataset("folder", tmp_path, Reading(subset=tmp_path / "none"))


@pytest.mark.parametrize("below", ["", "ILSVRC/Data/CLS-LOC"])
def test_kaggle_s_archive_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str):
    source = DATASETS["imagenet"]
    assert isinstance(source, FolderSource)
    monkeypatch.setitem(DATASETS, "imagenet", FolderSource("imagenet", 3, source.mean, source.std, roots=source.roots))
    flat(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    (tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "test").mkdir()
    rows = [f"ILSVRC2012_val_{i + 1:08},{WNIDS[c]} 85 1 499 272" for i, c in reversed([*enumerate(FLAT)])]
    (tmp_path / "LOC_val_solution.csv").write_bytes(lines("ImageId,PredictionString", *rows))
    assert open_dataset("imagenet", tmp_path / below, SMALL).test.labels.tolist() == FLAT


def test_a_list_of_labels_lies_in_the_given_folder_unless_the_set_has_one(tmp_path: Path):
    root = flat(tmp_path / "imagenet")
    files, source = (
        [f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(4)],
        FolderSource("x", 3, (), (), roots=("imagenet",)),
    )
    (tmp_path / "val_labels.txt").write_bytes(lines(*(f"{file} {WNIDS[0]}" for file in files)))
    assert source.open(tmp_path, SMALL).test.labels.tolist() == [0] * 4
    (root / "val.txt").write_bytes(lines(*(f"{file} {WNIDS[c]}" for file, c in zip(files, FLAT, strict=True))))
    assert source.open(tmp_path, SMALL).test.labels.tolist() == FLAT


@pytest.mark.parametrize(("to", "message"), [("..", "a link leads back to a folder above it"), ("loop", "be followed")])
def test_a_link_that_leads_back_is_one_short_line(tmp_path: Path, to: str, message: str):
    write_set(tmp_path, 1, 1)
    loop = tmp_path / "train" / WNIDS[1] / "loop"
    loop.symlink_to(loop.parent / to)
    with refused(str(loop), message) as error:
        open_dataset("folder", tmp_path, SMALL)
    assert str(error.value).count("loop") == 1


def test_a_minibatch_is_a_function_of_seed_epoch_and_image(tmp_path: Path):
    """Each image's crop and mirror are what its own draws say, whatever the threads."""
    write_set(tmp_path)
    images, epochs = np.array([7, 3, 35, 3, 0, 21]), np.array([0, 0, 0, 1, 1, 1])
    minibatches = []
    for threads in (1, 3):
        train = open_dataset("folder", tmp_path, Reading(size=16, threads=threads)).train
        minibatches.append(train.augmented(5, Augmentation(flip=True, scale_aspect=True))(epochs, images))
    assert all(torch.equal(a, b) for a, b in zip(*minibatches, strict=True))
    pixels, labels = minibatches[0]
    draws, flips = crop_draws(5, epochs, images, DRAWS), mirrored(5, epochs, images)
    assert labels.tolist() == (images // 12).tolist()
    for i, image in enumerate(images):
        out = torch.empty(1, 16, 16, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        data = train.entries.read(int(image))
        render(data, lambda h, w, d=draws[i]: scale_and_aspect(d, h, w, 16), bool(flips[i]), out)
        assert torch.equal(out[0], pixels[i])
    assert not torch.equal(pixels[1], pixels[3])
    assert len({tuple(d) for d in draws}) == len(draws)


def test_bad_files_are_refused_by_name_or_replaced_by_the_next(tmp_path: Path):
    write_set(tmp_path, 4, 2)
    bad = [tmp_path / "train" / WNIDS[0] / f"{WNIDS[0]}_{i}.JPEG" for i in (2, 3)]
    whole, _ = open_dataset("folder", tmp_path, SMALL).train.part(slice(None))
    bad[0].write_bytes(bad[0].read_bytes()[:200])
    bad[1].write_bytes(b"")
    train = open_dataset("folder", tmp_path, SMALL).train
    with refused(str(bad[0]), "data.skip_bad=true"):
        train.part(slice(None))
    train = open_dataset("folder", tmp_path, Reading(size=16, skip_bad=True, threads=2)).train
    pixels, labels = train.part(slice(None))
    assert labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert torch.equal(pixels, whole[[0, 1, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11]])
    assert list(train.skipped()) == [str(b) for b in bad]
    assert train.skipped()[str(bad[1])] == "empty"
    pixels, labels = train.readable(slice(1, 5))
    assert labels.tolist() == [0, 1]
    assert torch.equal(pixels, whole[[1, 4]])
    alone = train.select(np.array([2, 3]))
    with refused("not one image can be read"):
        alone.part(slice(None))
