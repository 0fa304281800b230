"""What images a run trains and evaluates on, as a record: counts and SHA256s, never a path.

In memory:  every pixel (or float) and label.
On disk:    the classes, and the class of every file and the last part of its name, in order. No file is read, nor its
            size asked for: bytes that changed under an old name are not seen. Of the packed form, lengths and CRC-32s.

Both after data.subset, data.train_images and data.holdout have chosen. A folder and its packed form share the names:
with the images' own bytes they are the same data, with images made smaller they are not.

Cost: 0.6 ms a megabyte in memory where the processor has SHA instructions; 0.1 s for 1.3 million files on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Contents = dict[str, str | int]
"""One entry a property, such as "training images": 60000. What one side does not know is not compared."""

PARTS = ("training", "test")
COUNT = "images"
_SHOWN = (COUNT, "form")  # the others are hashes


def digest(blocks: Iterable[bytes | npt.NDArray[Any]]) -> str:
    """SHA256 of blocks laid end to end; arrays in row-major order."""
    sha256 = hashlib.sha256()
    for block in blocks:
        sha256.update(block if isinstance(block, bytes) else np.ascontiguousarray(block).data)
    return sha256.hexdigest()


def merged(records: Sequence[Mapping[str, str | int]]) -> Contents:
    """All that is known of one data set from several records of it; the first that knows an entry counts."""
    return {name: value for record in reversed(records) for name, value in record.items()}


def difference(a: Mapping[str, str | int], b: Mapping[str, str | int], where: tuple[str, str]) -> str:
    """What two records of data disagree in, in words; "" where nothing that both know differs.

    Args:
        a, b: from ``Splits.contents``.
        where: words that tell the two apart, such as "there", "here".
    """
    differing = {name for name in a.keys() & b.keys() if a[name] != b[name]}
    differences = []
    for part in PARTS:
        properties = sorted(name.removeprefix(f"{part} ") for name in differing if name.startswith(f"{part} "))
        readable = [f"{part} {name}" for name in _SHOWN if name in properties]
        differences += [f"{name}: {a[name]} {where[0]}, {b[name]} {where[1]}" for name in readable]
        if properties and not readable:
            differences.append(f"other {part} {COUNT} ({' and '.join(properties)} differ)")
    if "classes" in differing:
        differences.append(f"classes: {a['classes']} {where[0]}, {b['classes']} {where[1]}")
    return ", ".join(differences)
