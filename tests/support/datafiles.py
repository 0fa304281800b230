"""Tiny made-up data files and whole data sets of them, for the tests of batchscale.data."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import pickle
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from batchscale.data import DATASETS, Dataset
from batchscale.data.official.files import OfficialFile
from batchscale.data.sources import Cifar100Source, CifarSource, IdxSource
from batchscale.errors import DataError

CIFAR_FILES = [f.name for f in DATASETS["cifar10"].files]
IDX_NAMES = [f.name for f in DATASETS["mnist"].files]


@contextlib.contextmanager
def refused(*parts: str) -> Iterator[pytest.ExceptionInfo[DataError]]:
    """A DataError of one line that holds every part."""
    with pytest.raises(DataError) as caught:
        yield caught
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """At most 1 MiB allocated at once in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def write_idx(
    path: Path, values: npt.NDArray[np.uint8], dims: tuple[int, ...] | None = None, magic: bytes = b"\0\0\x08"
) -> Path:
    """An idx file; gzipped where path ends in .gz. dims and magic may lie."""
    dims = values.shape if dims is None else dims
    data = magic + bytes([len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def cifar_pickle(data: npt.NDArray[Any], labels: list[int], spec: bytes = b"u1", entry: bytes = b"labels") -> bytes:
    """A batch as Python 2 wrote it: the form of the official files."""

    def word(b: bytes) -> bytes:
        return b"U" + bytes([len(b)]) + b

    shape = b"(" + b"".join(b"J" + struct.pack("<i", d) for d in data.shape) + b"t"
    raw = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    dtype = b"cnumpy\ndtype\n" + word(spec) + b"K\x00K\x01\x87R(K\x03" + word(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"K\x00tb\x89" + raw + b"tb"
    items = b"](" + b"".join(b"J" + struct.pack("<i", v) for v in labels) + b"e"
    return b"\x80\x02}(" + word(entry) + items + word(b"data") + array + b"u."


def pixels(num_images: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(num_images).integers(0, 256, (num_images, 3072), np.uint8)


def tiny_idx(folder: Path, top_label: int = 9, name: str = "mnist") -> IdxSource:
    """A data set of 6 + 4 images 2x3, its files written to the folder."""
    random = np.random.default_rng(len(name))
    shapes: list[tuple[int, ...]] = [(6, 2, 3), (6,), (4, 2, 3), (4,)]
    files = []
    for file, shape in zip(IDX_NAMES, shapes, strict=True):
        values = random.integers(0, 256, shape, np.uint8) if len(shape) == 3 else np.arange(shape[0], dtype=np.uint8)
        if len(shape) == 1:
            values[-1] = top_label
        data = write_idx(folder / file, values).read_bytes()
        sha256 = hashlib.sha256(gzip.decompress(data)).hexdigest()
        files.append(OfficialFile(file, hashlib.md5(data).hexdigest(), len(data), shape, sha256))
    source = DATASETS[name]
    assert isinstance(source, IdxSource)
    return replace(source, files=tuple(files))


def tiny_cifar(folder: Path) -> CifarSource:
    folder.mkdir(parents=True)
    files = []
    for i, name in enumerate(CIFAR_FILES):
        data = cifar_pickle(pixels(i + 1)[:1].repeat(2, 0), [i, 9])
        if name == "batches.meta":
            data = pickle.dumps({b"label_names": [b"name"] * 10})
        (folder / name).write_bytes(data)
        files.append(OfficialFile(name, hashlib.md5(data).hexdigest(), len(data)))
    source = DATASETS["cifar10"]
    assert isinstance(source, CifarSource)
    return replace(source, files=tuple(files), images_per_file=2)


def tiny_cifar100(folder: Path) -> Cifar100Source:
    """Two training images and a test image, in files of the official form."""
    folder.mkdir(parents=True)
    contents = {
        "train": cifar_pickle(pixels(2), [99, 3], entry=b"fine_labels"),
        "test": cifar_pickle(pixels(1), [50], entry=b"fine_labels"),
        "meta": pickle.dumps({b"fine_label_names": [b"name"] * 100, b"coarse_label_names": [b"name"] * 20}),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    files = tuple(OfficialFile(name, hashlib.md5(data).hexdigest()) for name, data in contents.items())
    source = DATASETS["cifar100"]
    assert isinstance(source, Cifar100Source)
    return replace(source, files=files, images=(2, 1))


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in parts)


def unpack(folder: Path, keep: bool) -> None:
    for file in IDX_NAMES:
        (folder / file.removesuffix(".gz")).write_bytes(gzip.decompress((folder / file).read_bytes()))
        if not keep:
            (folder / file).unlink()
