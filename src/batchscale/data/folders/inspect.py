"""Checking images on disk: every file read and decoded whole, what is bad named, what is unusual counted."""

from __future__ import annotations

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image
from tqdm import tqdm

from batchscale.data.folders.entries import Entries
from batchscale.data.folders.folders import OTHER_KIND
from batchscale.data.folders.jpeg import BadImage, decode_whole, read_frame
from batchscale.data.folders.packed import PackedEntries
from batchscale.data.official.faults import Tell
from batchscale.errors import DataError

_AT_ONCE = 256


@dataclass
class Inspected:
    """What is in one part of a set.

    Attributes:
        bad: files that cannot be read, and why.
        damaged: files that PIL reads without a word although libjpeg-turbo warns of damage, and of which.
        kinds: how many files are of each unusual kind: grey, CMYK, 16 bits, another format than JPEG.
        sides: shortest and longest side of all images.
    """

    bad: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    sides: tuple[int, int] = (0, 0)


def _kind(data: bytes) -> str:
    """What is unusual about a readable image, or ""."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            return "16 bits"
        if image.mode == "CMYK":
            return "CMYK"
        if image.mode in ("L", "LA", "1"):
            return "grey"
        return "" if image.format == "JPEG" else f"{image.format}"


def _look(entries: Entries, entry: int) -> tuple[str, str, str, tuple[int, int]]:
    """(why it is bad, the warning of damage, kind, (height, width)) of one file."""
    try:
        data = entries.read(entry)
        height, width = decode_whole(data).shape[:2]
    except (BadImage, DataError) as error:  # a packed image may be altered
        return str(error).removeprefix(f"{entries.shown(entry)}: "), "", "", (0, 0)
    warning, frame = "", read_frame(data)
    if frame is not None and frame.components in (1, 3):
        try:
            simplejpeg.decode_jpeg(data)
        except ValueError as error:
            warning = " ".join(str(error).split())
    return "", warning, _kind(data), (height, width)


def inspect(entries: Entries, part: str, threads: int, tell: Tell) -> Inspected:
    """Decode every image whole.

    Args:
        entries: the files.
        part: for the progress bar.
        threads: that decode.
        tell: takes that a packed file's SHA256 is another.
    """
    if isinstance(entries, PackedEntries):
        entries.verify(tell)
    inspected, shortest, longest = Inspected(), 1 << 31, 0
    with (
        ThreadPoolExecutor(threads, "batchscale-check") as pool,
        tqdm(total=len(entries), desc=part, unit=" images", disable=None) as bar,
    ):
        for first in range(0, len(entries), _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, len(entries)))
            for entry, (reason, warning, kind, sides) in zip(
                numbers, pool.map(lambda e: _look(entries, e), numbers), strict=True
            ):
                if reason:
                    inspected.bad[entries.shown(entry)] = reason
                    continue
                if warning:
                    inspected.damaged[entries.shown(entry)] = warning
                if kind:
                    inspected.kinds[kind] += 1
                shortest, longest = min(shortest, *sides), max(longest, *sides)
            bar.update(len(numbers))
    inspected.sides = (shortest, longest) if longest else (0, 0)
    return inspected


def summary(entries: Entries, inspected: Inspected) -> dict[str, Any]:
    """One part, for ``batchscale data check``."""
    return {
        "images": len(entries),
        "images_per_class": np.bincount(entries.labels, minlength=len(entries.classes)).tolist(),
        "bad": inspected.bad,
        "damaged": inspected.damaged,
        "kinds": dict(sorted(inspected.kinds.items())),
        "shortest_side": inspected.sides[0],
        "longest_side": inspected.sides[1],
        "other_files": entries.passed_over.number(*OTHER_KIND),
        "passed_over": entries.passed_over.record(),
        "packed": isinstance(entries, PackedEntries),
    }
