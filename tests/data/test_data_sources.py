"""The table of data sets: where files are looked for, checksums, and the real data behind the constants."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import math
import pickle
import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.datafiles import (
    CIFAR_FILES,
    IDX_NAMES,
    pixels,
    refused,
    same,
    tiny_cifar,
    tiny_idx,
    unpack,
    write_idx,
)

from batchscale.data import DATASETS, load_dataset
from batchscale.data.image.cifar import decode_meta
from batchscale.data.image.digits import split
from batchscale.data.image.idx import read_idx
from batchscale.data.official.prepare import check
from batchscale.members import TEXTS

# where files are looked for, and checksums


@pytest.mark.parametrize("unpacked", ["gz", "both", "unpacked"])
@pytest.mark.parametrize("place", ["fashion_mnist", "FashionMNIST/raw", "."])
def test_idx_layouts_are_found(tmp_path: Path, place: str, unpacked: str) -> None:
    source = tiny_idx(tmp_path / place, name="fashion_mnist")
    images = read_idx(tmp_path / place / IDX_NAMES[0])
    if unpacked != "gz":
        unpack(tmp_path / place, keep=unpacked == "both")
    dataset = source.load(tmp_path)
    assert torch.equal(dataset.train_images, images[:, None])
    assert dataset.train_labels.tolist() == [0, 1, 2, 3, 4, 9]
    assert dataset.test_labels.tolist() == [0, 1, 2, 9]
    assert dataset.test_images.shape == (4, 1, 2, 3)


@pytest.mark.parametrize("place", ["cifar10", "cifar-10-batches-py", "cifar10/cifar-10-batches-py", "."])
def test_cifar_layouts_are_found(tmp_path: Path, place: str) -> None:
    dataset = tiny_cifar(tmp_path / "data" / place).load(tmp_path / "data")
    assert dataset.train_labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert dataset.test_labels.tolist() == [5, 9]
    assert dataset.test_images[0].flatten().tolist() == pixels(6)[0].tolist()


def test_a_folder_with_all_files_comes_before_one_with_some(tmp_path: Path) -> None:
    source = tiny_idx(tmp_path / "MNIST" / "raw")
    write_idx(tmp_path / "mnist" / IDX_NAMES[0], np.zeros(1, np.uint8))
    source.load(tmp_path)
    (tmp_path / "MNIST" / "raw" / IDX_NAMES[1]).unlink()
    with refused("1 of 4", IDX_NAMES[1]):
        source.load(tmp_path)


def test_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_idx(tmp_path / "env" / "mnist")
    monkeypatch.setenv("BATCHSCALE_DATA", str(tmp_path / "env"))
    assert same(source.load(None), source.load(tmp_path / "env"))
    with refused(str(tmp_path / "given")):  # --data comes before the environment
        source.load(tmp_path / "given")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("named", [True, False])
def test_missing_files_are_listed_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, named: bool
) -> None:
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    files = [part for file in DATASETS[name].files for part in (file.name, file.md5)]
    where = [str(tmp_path / layout) for layout in DATASETS[name].layouts] if named else ["no folder"]
    with refused(*files, *where, f"batchscale data prepare {name} --data DIR", "--data DIR", "BATCHSCALE_DATA"):
        load_dataset(name, tmp_path if named else None)


@pytest.mark.parametrize("damage", ["altered", "cut", "longer", "empty"])
@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("number", range(4))
def test_wrong_checksum(tmp_path: Path, number: int, unpacked: bool, damage: str) -> None:
    source = tiny_idx(tmp_path)
    if unpacked:
        unpack(tmp_path, keep=False)
    path = tmp_path / (IDX_NAMES[number].removesuffix(".gz") if unpacked else IDX_NAMES[number])
    data = path.read_bytes()
    changed = {"altered": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "longer": data + b"\0", "empty": b""}
    path.write_bytes(changed[damage])
    hasher = hashlib.sha256(changed[damage]) if unpacked else hashlib.md5(changed[damage])
    official = source.files[number]
    expected = official.unpacked_sha256 if unpacked else official.md5
    with refused(str(path), hasher.hexdigest(), expected, f"{len(data)} bytes", "batchscale data prepare"):
        source.load(tmp_path)


@pytest.mark.parametrize("number", range(7))
def test_wrong_checksum_cifar(tmp_path: Path, number: int) -> None:
    source = tiny_cifar(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / CIFAR_FILES[number]
    path.write_bytes(path.read_bytes() + b"\0")
    with refused(str(path), source.files[number].md5, hashlib.md5(path.read_bytes()).hexdigest()):
        source.load(tmp_path)


def test_idx_label_out_of_range(tmp_path: Path) -> None:
    source = tiny_idx(tmp_path, top_label=10)
    with refused("mnist", "0 to 10", "0..9"):
        source.load(tmp_path)


def test_counts_are_checked_behind_the_checksum(tmp_path: Path) -> None:
    source = tiny_idx(tmp_path)
    shorter = (replace(source.files[0], shape=(5, 2, 3)), *source.files[1:])
    with refused(IDX_NAMES[0], "(6, 2, 3)", "(5, 2, 3)"):
        replace(source, files=shorter).load(tmp_path)


def test_unknown_name() -> None:
    with refused("'fashion-mnist'", "did you mean fashion_mnist?", "digits, mnist, fashion_mnist, cifar10"):
        load_dataset("fashion-mnist")
    with refused("'qqq'", "known are"):
        load_dataset("qqq")


def test_every_entry_has_the_same_seam() -> None:
    for name, source in DATASETS.items():
        assert source.name == name
        of_its_images = ["pairs", *TEXTS]
        assert len(source.mean) == len(source.std) >= (name not in of_its_images)
        unlisted = {"nuclei": "nuclei_dsb2018", "voc_detection": "VOCdevkit/VOC2007", "shakespeare": "tinyshakespeare"}
        unlisted["voc_segmentation"] = "VOCdevkit/VOC2012"
        unlisted |= {name: name for name in ("pairs", "coco", "bccd", "text")}
        assert source.folder_name == (name if source.files else unlisted.get(name, ""))
        assert len({f.md5 for f in source.files}) == len(source.files)


# digits


def test_digits_split_is_disjoint_complete_and_fixed() -> None:
    sklearn_digits = importlib.import_module("sklearn.datasets").load_digits()
    train, test = split()
    assert (len(train), len(test)) == (1437, 360)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    dataset = load_dataset("digits")
    whole = np.concatenate([dataset.train_images.numpy(), dataset.test_images.numpy()])
    order = torch.cat([train, test]).numpy()
    np.testing.assert_array_equal(whole[:, 0], sklearn_digits.images[order] * 15)
    labels = torch.cat([dataset.train_labels, dataset.test_labels])
    np.testing.assert_array_equal(labels.numpy(), sklearn_digits.target[order])
    parts = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    data = b"".join(part.numpy().tobytes() for part in parts)
    assert hashlib.sha256(data).hexdigest() == "8e89406580ca90888c45f8d4ae12902e52803105c7b8c7c1255243acadde3f7c"


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with refused("digits", "scikit-learn", "pip install"):
        load_dataset("digits")


def test_digits_are_read_without_importing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of every process of every run, whose time the tests and the demonstration feel."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert len(load_dataset("digits").train_images) == 1437


def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let scikit-learn's file of digits be another one."""
    (folder / "datasets" / "data").mkdir(parents=True)
    (folder / "datasets" / "data" / "digits.csv.gz").write_bytes(content)
    package = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)


def test_digits_of_another_scikit_learn_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch, gzip.compress(b"1,2\n3,17\n"))
    with refused("digits", "(2, 2)", "install a scikit-learn release"):
        load_dataset("digits")


def test_digits_kept_elsewhere_are_had_by_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = load_dataset("digits")
    elsewhere(tmp_path, monkeypatch, b"no gzip")
    dataset = load_dataset("digits")
    assert torch.equal(dataset.train_images, usual.train_images)
    assert torch.equal(dataset.test_labels, usual.test_labels)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with refused("digits", "scikit-learn cannot give its images", "install a scikit-learn release"):
        load_dataset("digits")


# the real data

SIZES = {"mnist": (60_000, 10_000), "fashion_mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}


def real(name: str, request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("cifar_folder" if name == "cifar10" else "data_folder")
    if name != "cifar10" and None in DATASETS[name].find(folder):
        pytest.skip(f"no real {name} in {folder}")
    return folder


def mean_and_std(channel: npt.NDArray[np.uint8]) -> tuple[float, float]:
    counts = [int(c) for c in np.bincount(channel.ravel(), minlength=256)]
    mean = Fraction(sum(v * c for v, c in enumerate(counts)), channel.size)
    square = Fraction(sum(v * v * c for v, c in enumerate(counts)), channel.size)
    return float(mean), math.sqrt(square - mean * mean)


@pytest.mark.parametrize("name", ["digits", *SIZES])
def test_mean_and_std_are_those_of_the_training_images(name: str, request: pytest.FixtureRequest) -> None:
    dataset = load_dataset(name, None if name == "digits" else real(name, request))
    images = dataset.train_images.numpy()
    measured = [mean_and_std(images[:, c]) for c in range(images.shape[1])]
    assert tuple(mean for mean, _ in measured) == DATASETS[name].mean
    assert tuple(std for _, std in measured) == DATASETS[name].std


@pytest.mark.parametrize("name", SIZES)
def test_check_says_what_is_in_the_real_files(name: str, request: pytest.FixtureRequest) -> None:
    answer = check(name, real(name, request))
    assert (answer["train_images"], answer["test_images"]) == SIZES[name]
    assert answer["image_shape"] == ([3, 32, 32] if name == "cifar10" else [1, 28, 28])
    assert sum(answer["train_images_per_class"]) == answer["train_images"]
    if name != "mnist":  # the other two are balanced
        assert set(answer["train_images_per_class"]) == {answer["train_images"] // 10}
        assert set(answer["test_images_per_class"]) == {1000}
    assert [f["file"] for f in answer["files"]] == [f.name for f in DATASETS[name].files]


def test_mnist_equals_torchvision_in_its_layout(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DATASETS["mnist"].locate(real("mnist", request)):
        packed = path.read_bytes()
        data = gzip.decompress(packed) if path.suffix == ".gz" else packed
        (raw / path.name.removesuffix(".gz")).write_bytes(data)
    ours = load_dataset("mnist", tmp_path)
    for part in ("train", "test"):
        theirs = importlib.import_module("torchvision.datasets").MNIST(tmp_path, train=part == "train")
        assert torch.equal(getattr(ours, f"{part}_images")[:, 0], theirs.data)
        assert torch.equal(getattr(ours, f"{part}_labels"), theirs.targets)
    for path in raw.iterdir():
        path.unlink()  # 55 MB


def test_cifar_equals_numpy_unpickling(cifar_folder: Path) -> None:
    dataset = load_dataset("cifar10", cifar_folder)
    paths = DATASETS["cifar10"].locate(cifar_folder)
    assert decode_meta(paths[-1].read_bytes(), "meta")[:2] == ("airplane", "automobile")
    for i in (4, 5):
        with warnings.catch_warnings(), open(paths[i], "rb") as stream:
            warnings.simplefilter("ignore")  # numpy 2.4 deprecates what the official pickles hold
            theirs = pickle.load(stream, encoding="bytes")
        images = dataset.train_images[40_000:] if i == 4 else dataset.test_images
        labels = dataset.train_labels[40_000:] if i == 4 else dataset.test_labels
        np.testing.assert_array_equal(images.numpy().reshape(10_000, -1), theirs[b"data"])
        assert labels.tolist() == theirs[b"labels"]


def test_files_of_the_other_set_are_told_by_name(request: pytest.FixtureRequest) -> None:
    folder = DATASETS["mnist"].locate(real("mnist", request))[0].parent
    with refused(str(folder), "a file of mnist", "name the folder of the right data set"):
        load_dataset("fashion_mnist", folder)
