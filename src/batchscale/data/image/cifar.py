"""Reader of the files of cifar-10-batches-py and cifar-100-python: pickles, opened without running anything they hold.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images"; cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscale.errors import DataError

IMAGE_SHAPE = (3, 32, 32)
NUM_CLASSES = 10

_PIXELS = 3072
_AGAIN = "fetch the file again (`batchscale data prepare NAME --data DIR`)"


class _Piece:
    """Stands in for a numpy name of the pickle: keeps what it is called with, and runs nothing of numpy."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Piece):
    """numpy.core.multiarray._reconstruct: state = (1, shape, dtype, in Fortran order, bytes)."""


class _ArrayType(_Piece):
    """numpy.ndarray, only ever named as an argument."""


class _Dtype(_Piece):
    """numpy.dtype: args = (b"u1", ...)."""


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, name: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str, /) -> type[_Piece]:
        if (module, name) not in _ADMITTED:
            raise DataError(
                f"{self._name}: tries to load {module}.{name}: a CIFAR file holds only numpy arrays, "
                f"lists and strings; do not use this file, {_AGAIN}"
            )
        return _ADMITTED[module, name]


def _unpickle(data: bytes, name: str) -> dict[Any, Any]:
    stream = io.BytesIO(data)
    try:
        entry = _Unpickler(stream, name).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{name}: damaged pickle ({reason}): must be an official CIFAR file; {_AGAIN}") from None
    if stream.read(1):
        raise DataError(f"{name}: goes on after its pickle: must end there; {_AGAIN}")
    if not isinstance(entry, dict):
        raise DataError(f"{name}: holds a {type(entry).__name__}: must be a dict; {_AGAIN}")
    return entry


def decode_batch(
    data: bytes, name: str, num_images: int = 10_000, labels_entry: str = "labels", num_classes: int = NUM_CLASSES
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The images and labels of data_batch_1..5 or test_batch; of CIFAR-100 those of train or test.

    Args:
        data: the bytes of the file.
        name: the file, for messages.
        num_images: images the file must hold.
        labels_entry: where the labels stand: fine_labels of CIFAR-100.
        num_classes: C.

    Returns:
        uint8 (num_images, 3, 32, 32), a read-only view, and int64 (num_images,) in [0, C).

    Raises:
        DataError: no such pickle, it names anything but numpy arrays, wrong shapes, types or labels.
    """
    entry = _unpickle(data, name)
    array, labels = entry.get(b"data"), entry.get(labels_entry.encode())
    want = (num_images, _PIXELS)
    match array:
        case _Array(state=(1, tuple(shape), _Dtype(args=(b"u1", *_)), False, bytes(raw))) if (
            shape == want and len(raw) == num_images * _PIXELS
        ):
            images = np.frombuffer(raw, dtype=np.uint8).reshape(num_images, *IMAGE_SHAPE)
        case _:
            raise DataError(f"{name}: its entry data is {_describe(array)}: must be a uint8 array {want}; {_AGAIN}")
    if not isinstance(labels, list) or len(labels) != num_images:
        raise DataError(
            f"{name}: its entry {labels_entry} is {_describe(labels)}: must be a list of {num_images} whole numbers; "
            f"{_AGAIN}"
        )
    for label in labels:
        if type(label) is not int or not 0 <= label < num_classes:
            raise DataError(
                f"{name}: holds the label {_describe(label)}: must be a whole number in 0..{num_classes - 1}; {_AGAIN}"
            )
    return images, np.array(labels, dtype=np.int64)


def decode_meta(
    data: bytes, name: str, names_entry: str = "label_names", num_classes: int = NUM_CLASSES
) -> tuple[str, ...]:
    """The class names of batches.meta, or of CIFAR-100's meta, in the order of the labels.

    Raises:
        DataError: no such pickle, or not as many names as classes.
    """
    names = _unpickle(data, name).get(names_entry.encode())
    if (
        not isinstance(names, list)
        or len(names) != num_classes
        or not all(isinstance(n, bytes) and n.isascii() for n in names)
    ):
        raise DataError(f"{name}: its entry {names_entry} is {_describe(names)}: must be {num_classes} names; {_AGAIN}")
    return tuple(n.decode("ascii") for n in names)


def _describe(value: Any) -> str:
    """What stands in a file, short enough for a message."""
    match value:
        case None:
            return "missing"
        case _Array(state=(_, shape, _Dtype(args=(spec, *_)), _, bytes(raw))):
            return f"an array {str(shape)[:60]} of type {str(spec)[:20]} in {len(raw)} bytes"
        case list():
            return f"a list of {len(value)}"
        case int():
            return repr(value)[:20]
    return f"a {type(value).__name__.removeprefix('_')}"
