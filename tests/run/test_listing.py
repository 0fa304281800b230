"""Image folders are looked through once a host, whoever starts its processes; a host that cannot is named on all."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.launching import result, run
from support.pictures import write_set
from support.refusing import refusing
from support.worlds import in_processes, trained

from batchscale.build import together
from batchscale.build.inputs import load_data
from batchscale.build.together import load_together, offered
from batchscale.comm import World
from batchscale.comm.world import world as world_module
from batchscale.data.folders.folder_source import FolderSource
from batchscale.errors import DataError
from batchscale.recipe import load_recipe
from batchscale.run.fingerprint import check_same_data

RECIPE = """\
data: {name: folder, augment: {crop: scale-aspect, size: 16, flip: true}}
model: {name: cnn}
minibatch: {workers: 4, per_worker: 2}
epochs: 0.5
learning_rate: {reference: 0.1, reference_minibatch: 256}
numerics: {exact: true}
execution: {device: cpu}
"""
FOLDERS = 8  # train and val, with three classes each


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_set(tmp_path_factory.mktemp("set") / "images", train=8, val=2)
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@dataclass
class Counted:
    """os.scandir that counts the folders of a data set it was asked for."""

    data: Path
    number: int = 0

    def __post_init__(self) -> None:
        self._real, os.scandir = os.scandir, self.scandir

    def scandir(self, path: Any = ".") -> Any:
        self.number += os.fsdecode(path).startswith(str(self.data))
        return self._real(path)


def place_on_host(rank: int, ranks_a_host: int) -> None:
    """As many ranks of each host; to be called before anything connects."""
    world_module.this_host = lambda: f"host {rank // ranks_a_host}"


def trained_on_two_hosts(rank: int, images: Path) -> tuple[int, str]:
    place_on_host(rank, 2)
    counted = Counted(images)
    result = trained(rank, str(images / "recipe.yaml"), (), images, None)
    return counted.number, result["weights_sha256"]


def test_a_run_of_two_hosts_lists_once_on_each_and_has_the_bits_of_one_process(images):
    alone = trained(0, str(images / "recipe.yaml"), (), images, None)["weights_sha256"]
    numbers, sha256s = zip(*in_processes(4, trained_on_two_hosts, images), strict=True)
    assert numbers == (FOLDERS, 0, FOLDERS, 0)
    assert set(sha256s) == {alone}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_command_lists_once_whatever_it_starts(images, tmp_path, processes):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "real = os.scandir\n"
        "def scandir(path='.'):\n"
        f"    if os.fsdecode(path).startswith({str(images)!r}):\n"
        f"        with open({str(tmp_path / 'log')!r}, 'a') as log:\n"
        "            log.write(f'{os.getpid()}\\n')\n"
        "    return real(path)\n"
        "os.scandir = scandir\n"
    )
    words = ("--data", str(images), "--processes", str(processes), "--out", str(tmp_path / "run"))
    result("train", str(images / "recipe.yaml"), *words, environment={"PYTHONPATH": str(tmp_path)})
    listed_by = (tmp_path / "log").read_text().split()
    assert len(listed_by) == FOLDERS
    assert len(set(listed_by)) == 1


def opened(rank: int, ranks_a_host: int, roots: list[Path], refused: bool) -> tuple[int, str]:
    """Folders that this rank has listed, and the error."""
    if refused:
        together.memory_file = refusing(errno.EPERM)
    place_on_host(rank, ranks_a_host)
    world, counted = World.connect(torch.device("cpu"), 60.0), Counted(roots[rank])
    try:
        with load_together(load_recipe(roots[0] / "recipe.yaml"), roots[rank], None, world) as dataset:
            check_same_data(world.gather(dataset.contents))
            assert len(dataset.train) == 24
            assert dataset.train.file(0)[0].startswith(str(roots[rank]))
    except DataError as error:
        return counted.number, str(error)
    return counted.number, ""


def test_where_memory_files_are_refused_every_process_lists(images):
    assert in_processes(2, opened, 2, [images] * 2, True) == [(FOLDERS, "")] * 2


def test_a_host_that_lacks_the_data_is_named_on_all_ranks(images, tmp_path):
    answers = in_processes(4, opened, 2, [images, images, tmp_path, tmp_path], False)
    line = f"rank 2 (host {socket.gethostname()}): data.name='folder': no folder with train/<class>/<image> or "
    assert all(error.startswith(line) for _, error in answers)
    assert len({error for _, error in answers}) == 1
    alone = in_processes(2, opened, 2, [tmp_path_with_recipe(images, tmp_path)] * 2, False)
    assert {error[: error.index(":")] for _, error in alone} == {"data.name='folder'"}  # one host: as ever


def tmp_path_with_recipe(images: Path, tmp_path: Path) -> Path:
    shutil.copy(images / "recipe.yaml", tmp_path)
    return tmp_path


def test_a_host_whose_copy_is_another_is_named(images, tmp_path):
    copy = shutil.copytree(images, tmp_path / "copy")
    (copy / "train/n01440764/n01440764_0.JPEG").rename(copy / "train/n01440764/new.JPEG")
    answers = in_processes(4, opened, 2, [images, images, copy, copy], False)
    assert [number for number, _ in answers] == [FOLDERS, 0, FOLDERS, 0]
    assert all(error.startswith("rank 2 has other data than the ranks before it: ") for _, error in answers)


def test_a_listing_is_read_as_long_as_it_is_offered_and_is_the_data(images):
    recipe = load_recipe(images / "recipe.yaml")
    dataset = load_data(recipe, images)
    with offered(dataset.listing) as path:
        again = load_data(recipe, images / "not-there", listing=together._read(path))
    assert again.contents == dataset.contents
    assert [again.train.file(image) for image in range(24)] == [dataset.train.file(image) for image in range(24)]
    assert together._read(path) is None
    with offered(None) as path:
        assert path == ""
        assert together._read(path) is None
    with open(images / "recipe.yaml", "rb") as file:  # what has the number of a listing that is gone
        assert together._read(f"/proc/{os.getpid()}/fd/{file.fileno()}") is None


def test_a_listing_without_its_end_is_none(images):
    listing = load_data(load_recipe(images / "recipe.yaml"), images).listing
    whole = len(pickle.dumps(listing, pickle.HIGHEST_PROTOCOL))
    with offered(listing) as path:
        for length in range(whole - 1, -1, -1):
            os.truncate(path, length)
            assert together._read(path) is None, length


def test_sources_list_on_every_process_unless_they_say_otherwise():
    class Merged(FolderSource):
        def open(self, folder, reading):
            return super().open(folder, reading)

    class Renamed(FolderSource):
        pass

    assert (FolderSource.lists_once, Renamed.lists_once, Merged.lists_once) == (True, True, False)
    with load_together(load_recipe("digits-cnn"), None, None, World()) as dataset:
        assert dataset.listing is None


def test_a_listing_that_was_handed_on_is_taken_once(images, monkeypatch):
    recipe = load_recipe(images / "recipe.yaml")
    with offered(load_data(recipe, images).listing) as path:
        monkeypatch.setenv(together.LISTING, path)
        with load_together(recipe, images / "not-there", None, World()) as dataset:
            assert len(dataset.train) == 24
        assert together.LISTING not in os.environ
        with (
            pytest.raises(DataError, match="no folder with train"),
            load_together(recipe, images / "no", None, World()),
        ):
            pass


def test_missing_data_is_the_same_line_with_processes_and_without(tmp_path, images):
    lines = set()
    for processes in ("1", "2"):
        words = ("train", str(images / "recipe.yaml"), "--data", str(tmp_path), "--processes", processes)
        code, _, err = run(*words, "--out", str(tmp_path / "run"))
        assert code == 2
        lines.add(err)
    assert len(lines) == 1
    assert "no folder with train/<class>/<image>" in lines.pop()
