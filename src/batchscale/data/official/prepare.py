"""Fetching a data set's official files when asked to, and checking what is there. Training never downloads."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from batchscale.data.official.files import listing
from batchscale.data.source import Source, data_folder
from batchscale.data.sources import owners, source_of
from batchscale.errors import DataError

_SILENCE_SECONDS = 60  # a server that says nothing for this long is given up on

# What a download through torchvision breaks with: no network, a server's refusal, a wrong checksum, no torchvision.
_FETCH_ERRORS = (
    OSError,
    RuntimeError,
    http.client.HTTPException,
    EOFError,
    zlib.error,
    tarfile.TarError,
    ImportError,
    DataError,
)


def prepare(name: str, folder: Path | None) -> dict[str, Any]:
    """Bring the official files of a data set into folder/<its folder>, unless they are there.

    Files are fetched beside their place, verified, then moved in by a rename; nothing on disk is overwritten.

    Args:
        name: a member of DATASETS.
        folder: what --data names; None takes BATCHSCALE_DATA.

    Returns:
        name; folder (None where none is needed); fetched (whether anything was downloaded); message, one line.

    Raises:
        DataError: unknown name, no folder, another file in the way, no network, or the folder cannot be written.
    """
    source = source_of(name)
    if not source.files:
        return _outcome(name, None, False, "comes with scikit-learn and needs no files")
    root = data_folder(folder)
    if root is None:
        raise DataError(f"--data: not given: `batchscale data prepare {name}` must know where to; add --data DIR")
    paths = source.find(root)
    _verify(source, paths)
    if None not in paths:
        return _outcome(name, _parent(paths), False, "was there already, every checksum right")
    target = root / source.folder_name
    _verify(source, [target / f.name if (target / f.name).exists() else None for f in source.files])
    try:
        _install(source, root, target)
    except _FETCH_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"data {name}: could not be fetched into {target} ({reason}): needs a network connection and a folder "
            f"that can be written; nothing was changed; try again, or copy the files there: {listing(source.files)}"
        ) from None
    return _outcome(name, target, True, "fetched, every checksum right")


def check(name: str, folder: Path | None) -> dict[str, Any]:
    """Read every file of a data set and say what is in it.

    Args:
        name: a member of DATASETS.
        folder: what --data names; None takes BATCHSCALE_DATA.

    Returns:
        name; faults: those of each file, a line each; where there is none also:
        folder (None where none is needed); files, each with file, path, md5 (as published);
        image_shape [C, H, W]; train_images, test_images; train_images_per_class, test_images_per_class
        (lists, in the order of the labels).

    Raises:
        DataError: unknown name.
    """
    source = source_of(name)
    try:
        dataset = source.load(folder)
    except DataError as first:
        return {"name": name, "faults": list(_faults(source, folder)) or [str(first)]}
    paths = source.locate(folder)
    return {
        "name": name,
        "faults": [],
        "folder": str(paths[0].parent) if paths else None,
        "files": [
            {"file": f.name, "path": str(path), "md5": f.md5} for f, path in zip(source.files, paths, strict=True)
        ],
        "image_shape": list(dataset.image_shape),
        "train_images": len(dataset.train_images),
        "test_images": len(dataset.test_images),
        "train_images_per_class": torch.bincount(dataset.train_labels, minlength=dataset.num_classes).tolist(),
        "test_images_per_class": torch.bincount(dataset.test_labels, minlength=dataset.num_classes).tolist(),
    }


def _faults(source: Source, folder: Path | None) -> Iterator[str]:
    """That files are missing, and what is wrong with each of those that are there."""
    paths = source.find(folder)
    try:
        source.locate(folder)
    except DataError as fault:
        yield str(fault)
    for file, path in zip(source.files, paths, strict=True):
        try:
            if path is not None:
                file.read(path, owners())
        except DataError as fault:
            yield str(fault)


def _outcome(name: str, folder: Path | None, fetched: bool, what: str) -> dict[str, Any]:
    where = f" in {folder}" if folder else ""
    return {
        "name": name,
        "folder": str(folder) if folder else None,
        "fetched": fetched,
        "message": f"{name}{where}: {what}",
    }


def _parent(paths: list[Path | None]) -> Path | None:
    return next((path.parent for path in paths if path), None)


def _verify(source: Source, paths: list[Path | None]) -> None:
    for file, path in zip(source.files, paths, strict=True):
        if path is not None:
            file.read(path, owners())


def _install(source: Source, root: Path, target: Path) -> None:
    """Fetch into a folder beside root or in it, verify, then move into target."""
    # On target's own file system, so that a rename moves what was fetched: whole, or not at all.
    nearest = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".batchscale-prepare-", dir=nearest) as temporary:
        empty = Path(temporary) / "fetched"
        empty.mkdir()
        with _patience(), contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout is for --json
            fetched = source.fetch(empty)
        official = Path(temporary) / source.folder_name
        official.mkdir()
        for file in source.files:
            file.read(fetched / file.name, owners())
            os.rename(fetched / file.name, official / file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.rename(official, target)
            return
        for file in source.files:
            if not (target / file.name).exists():
                os.rename(official / file.name, target / file.name)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server: torchvision sets no time limit of its own."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
