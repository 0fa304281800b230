"""The readers of idx files and CIFAR-10 pickles: equalities, and each kind of bad file."""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.datafiles import (
    cifar_pickle,
    little_memory,
    pixels,
    refused,
    write_idx,
)

from batchscale.data.image.cifar import decode_batch, decode_meta
from batchscale.data.image.idx import MAX_BYTES, decode_idx, read_idx
from batchscale.errors import DataError

# idx files


@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_idx_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    values = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    read = read_idx(write_idx(tmp_path / name, values), (2, 3, 4))
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.from_numpy(values))


def test_idx_shape_must_be_the_expected_one(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "a.gz", np.zeros((2, 3), np.uint8))
    with refused(str(path), "(2, 3)", "(3, 2)"):
        read_idx(path, (3, 2))


@pytest.mark.parametrize("magic", [b"\0\0\x0d", b"\1\0\x08", b"\0\1\x08"], ids=["float", "first", "second"])
def test_idx_wrong_magic(tmp_path: Path, magic: bytes) -> None:
    path = write_idx(tmp_path / "a.gz", np.zeros(3, np.uint8), magic=magic)
    with refused(str(path), "begins with the bytes " + magic.hex(" ")):
        read_idx(path)


@pytest.mark.parametrize("dims", [(), (1, 1, 1, 1, 1)])
def test_idx_wrong_number_of_dimensions(tmp_path: Path, dims: tuple[int, ...]) -> None:
    with refused("01 to 04"):
        read_idx(write_idx(tmp_path / "a.gz", np.zeros(1, np.uint8), dims=dims))


@pytest.mark.parametrize("name", ["a.gz", "a"])
@pytest.mark.parametrize(("dims", "says"), [((5,), "ends after 4 of the 5"), ((3,), "goes on after the 3")])
def test_idx_count_in_header_against_content(tmp_path: Path, name: str, dims: tuple[int, ...], says: str) -> None:
    path = write_idx(tmp_path / name, np.zeros(4, np.uint8), dims=dims)
    with refused(str(path), says):
        read_idx(path)


@pytest.mark.parametrize("dims", [(0, 28), (10**6, 10**6), (MAX_BYTES + 1,)])
def test_idx_header_that_claims_nothing_or_too_much(tmp_path: Path, dims: tuple[int, ...]) -> None:
    path = write_idx(tmp_path / "a.gz", np.zeros(4, np.uint8), dims=dims)
    with little_memory(), refused(str(path), f"{math.prod(dims)} values", "must be 1 to"):
        read_idx(path)


def test_idx_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "a.gz", np.zeros(1 << 25, np.uint8), dims=(16,))
    with little_memory(), refused("goes on after the 16 values"):
        read_idx(path)


def test_idx_gzip_cut_anywhere(tmp_path: Path) -> None:
    whole = write_idx(tmp_path / "a.gz", np.arange(200, dtype=np.uint8)).read_bytes()
    for length in range(len(whole)):
        with refused("cut"):
            decode_idx(io.BytesIO(whole[:length]), "cut")
    assert len(decode_idx(io.BytesIO(whole), "whole")) == 200


def test_idx_content_cut_inside_a_whole_gzip() -> None:
    whole = b"\0\0\x08\x01" + struct.pack(">I", 9) + bytes(9)
    for length in range(len(whole)):
        with refused("cut", "ends"):
            decode_idx(io.BytesIO(gzip.compress(whole[:length])), "cut")


def test_idx_damaged_gzip_never_gives_other_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 50, np.uint8)
    whole = write_idx(tmp_path / "a.gz", values).read_bytes()
    seen = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            read = decode_idx(io.BytesIO(bytes(damaged)), "damaged")
        except DataError:
            seen += 1
        else:  # a bit that says nothing of the content: time, system, padding
            np.testing.assert_array_equal(read.numpy(), values)
    assert seen > 7 * len(whole)


def test_idx_bytes_after_the_gzip(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "a.gz", np.zeros(4, np.uint8))
    path.write_bytes(path.read_bytes() + b"more")
    with refused(str(path), "damaged gzip"):
        read_idx(path)


def test_idx_that_is_not_there(tmp_path: Path) -> None:
    with refused(str(tmp_path / "a.gz"), "cannot be read"):
        read_idx(tmp_path / "a.gz")


# CIFAR-10 pickles


def test_cifar_gives_back_what_was_written() -> None:
    images, labels = decode_batch(cifar_pickle(pixels(3), [0, 9, 4]), "batch", 3)
    assert images.shape == (3, 3, 32, 32)
    np.testing.assert_array_equal(images.reshape(3, -1), pixels(3))
    np.testing.assert_array_equal(labels, np.array([0, 9, 4]))
    assert labels.dtype == np.int64


class Attack:
    """Unpickles by making a folder."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("way", ["mkdir", "eval"])
def test_cifar_pickle_cannot_run_code(tmp_path: Path, protocol: int, way: str) -> None:
    proof = tmp_path / "ran"
    attack = Attack(os.mkdir, str(proof)) if way == "mkdir" else Attack(eval, f"__import__('os').mkdir({str(proof)!r})")
    data = pickle.dumps({"data": attack}, protocol)
    for decode in (decode_batch, decode_meta):
        with refused("batch", "tries to load", way):
            decode(data, "batch")
        assert not proof.exists()
    pickle.loads(data)
    assert proof.exists()  # the attack is a real one


@pytest.mark.parametrize("module", ["numpy", "numpy.core.multiarray", "_codecs", "builtins", "copyreg"])
def test_cifar_pickle_admits_no_other_name(module: str) -> None:
    for name in ("fromfile", "load", "scalar", "encode", "getattr", "_reconstructor"):
        with refused(f"tries to load {module}.{name}:"):
            decode_batch(b"c" + module.encode() + b"\n" + name.encode() + b"\n.", "batch")


@pytest.mark.parametrize("value", [[1], b"text", 7, None])
def test_cifar_file_that_is_no_dict(value: Any) -> None:
    with refused("batch", f"holds a {type(value).__name__}", "must be a dict"):
        decode_batch(pickle.dumps(value), "batch")


@pytest.mark.parametrize(
    "data",
    [
        cifar_pickle(pixels(2), [1, 2]),
        cifar_pickle(pixels(3)[:, :-1], [1, 2, 3]),
        cifar_pickle(pixels(3).reshape(-1), [1, 2, 3]),
        cifar_pickle(pixels(3), [1, 2, 3], spec=b"i1"),
        cifar_pickle(pixels(3), [1, 2, 3], spec=b"O8"),
        cifar_pickle(pixels(3).astype(np.uint16), [1, 2, 3]),
        pickle.dumps({b"data": [1, 2, 3], b"labels": [1, 2, 3]}),
        pickle.dumps({b"labels": [1, 2, 3]}),
    ],
    ids=["fewer", "narrow", "flat", "signed", "objects", "bytes", "list", "missing"],
)
def test_cifar_wrong_array(data: bytes) -> None:
    with refused("batch", "its entry data is", "must be a uint8 array (3, 3072)"):
        decode_batch(data, "batch", 3)


def test_cifar_wrong_labels() -> None:
    for label in (10, -1, 255):
        with refused("batch", f"the label {label}", "0..9"):
            decode_batch(cifar_pickle(pixels(2), [0, label]), "batch", 2)
    for labels in ([1], [1, 2, 3]):
        with refused("batch", "its entry labels is", "a list of 2 whole numbers"):
            decode_batch(cifar_pickle(pixels(2), labels), "batch", 2)


def test_cifar_cut_or_longer() -> None:
    whole = cifar_pickle(pixels(1), [3])
    for length in (0, 1, 30, 100, len(whole) // 2, len(whole) - 1):
        with refused("batch", "damaged pickle"):
            decode_batch(whole[:length], "batch", 1)
    with refused("batch", "goes on after"):
        decode_batch(whole + b".", "batch", 1)


@pytest.mark.parametrize("names", [[b"a"] * 9, [b"a"] * 9 + [3], b"aaaaaaaaaa", None])
def test_cifar_meta_needs_ten_names(names: Any) -> None:
    with refused("meta", "10 names"):
        decode_meta(pickle.dumps({b"label_names": names}), "meta")
