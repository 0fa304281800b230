"""Fetching official files: nothing on disk is lost, and every failure is one line."""

from __future__ import annotations

import hashlib
import signal
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.datafiles import (
    IDX_NAMES,
    refused,
    same,
    tiny_idx,
    tree,
    unpack,
)

from batchscale.cli import main
from batchscale.data import DATASETS
from batchscale.data.official.prepare import check, prepare
from batchscale.data.sources import IdxSource

# prepare and check


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_prepare_without_network_changes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    untouched = tree(tmp_path)
    md5s = [f.md5 for f in DATASETS[name].files]
    with refused(name, "no network in this test", "nothing was changed", *md5s):
        prepare(name, tmp_path)
    assert tree(tmp_path) == untouched
    with refused(name, str(tmp_path / "a" / "b")):
        prepare(name, tmp_path / "a" / "b")
    assert tree(tmp_path) == untouched


@pytest.fixture
def fetchable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IdxSource:
    """A tiny stand-in for mnist that torchvision "downloads"; says where it fetched to."""

    def download(root: Path, download: bool) -> None:
        assert download
        folder = root / "MNIST" / "raw"
        tiny_idx(folder)
        unpack(folder, keep=True)
        print("torchvision prints")

    source = tiny_idx(tmp_path / "elsewhere")
    monkeypatch.setitem(DATASETS, "mnist", source)
    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    return source


def test_prepare_fetches_once(tmp_path: Path, fetchable: IdxSource, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "data"
    outcome = prepare("mnist", folder)
    assert (outcome["fetched"], outcome["folder"]) == (True, str(folder / "mnist"))
    assert sorted(tree(folder)) == sorted(["mnist", *(f"mnist/{name}" for name in IDX_NAMES)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "elsewhere"]  # nothing temporary is left
    assert same(fetchable.load(folder), fetchable.load(tmp_path / "elsewhere"))
    untouched = tree(folder)
    assert prepare("mnist", folder)["fetched"] is False
    assert tree(folder) == untouched
    assert capsys.readouterr().out == ""  # standard output is for --json


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_fetch_that_is_stopped_leaves_nothing(
    tmp_path: Path, fetchable: IdxSource, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def stopped(root: Path, download: bool) -> None:
        tiny_idx(root / "MNIST" / "raw")
        signal.raise_signal(number)

    untouched = tree(tmp_path)
    monkeypatch.setattr("torchvision.datasets.MNIST", stopped)
    previous = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left:
            main(["data", "prepare", "mnist", "--data", str(tmp_path)])
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, previous)
    assert left.value.code == 128 + number
    assert tree(tmp_path) == untouched


def test_prepare_fills_in_what_is_missing(tmp_path: Path, fetchable: IdxSource) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    kept = folder / IDX_NAMES[0]
    kept.write_bytes((tmp_path / "elsewhere" / IDX_NAMES[0]).read_bytes())
    (folder / "notes.txt").write_text("mine")
    inode = kept.stat().st_ino
    prepare("mnist", folder.parent)
    assert kept.stat().st_ino == inode
    assert sorted(tree(folder)) == sorted([*IDX_NAMES, "notes.txt"])
    fetchable.load(folder.parent)


@pytest.mark.usefixtures("fetchable")
@pytest.mark.parametrize("others", [True, False])
def test_prepare_does_not_touch_a_damaged_file(tmp_path: Path, others: bool) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in IDX_NAMES if others else IDX_NAMES[:1]:
        (folder / name).write_bytes((tmp_path / "elsewhere" / name).read_bytes())
    (folder / IDX_NAMES[0]).write_bytes(b"damaged")
    untouched = tree(tmp_path)
    with refused(str(folder / IDX_NAMES[0]), hashlib.md5(b"damaged").hexdigest(), "move the file away"):
        prepare("mnist", folder.parent)
    assert tree(tmp_path) == untouched


def test_prepare_refuses_a_download_with_another_checksum(
    tmp_path: Path, fetchable: IdxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (*fetchable.files[:3], replace(fetchable.files[3], md5="0" * 32))
    monkeypatch.setitem(DATASETS, "mnist", replace(fetchable, files=files))
    untouched = tree(tmp_path)
    with refused("could not be fetched", "0" * 32):
        prepare("mnist", tmp_path / "data")
    assert tree(tmp_path) == untouched


def test_prepare_needs_a_folder_and_digits_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    with refused("--data", "batchscale data prepare mnist"):
        prepare("mnist", None)
    assert "comes with scikit-learn and needs no files" in prepare("digits", None)["message"]
    assert check("digits", None)["files"] == []
