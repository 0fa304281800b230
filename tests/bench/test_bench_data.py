"""batchscale bench data: what each contender delivers, the document, mistakes, and that nothing stays behind."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.launching import Started
from support.pictures import write_classes

from batchscale.bench import rounds
from batchscale.bench.contender import Block, Contender
from batchscale.bench.data import measure, prepare, sample
from batchscale.bench.data.assignment import DataAssignment
from batchscale.bench.data.contenders import FEED, IN_MEMORY, ON_DISK, OURS, PACKAGES, PACKED, PIL
from batchscale.bench.data.document import document
from batchscale.bench.data.loaders import LOADERS
from batchscale.bench.data.prepare import Preparation, Prepared
from batchscale.bench.data.process import check, minibatches
from batchscale.bench.data.sample import Sample, photographs, write
from batchscale.bench.data.table import as_table
from batchscale.bench.documents import MeasuredData
from batchscale.bench.rounds import Budget, Measured
from batchscale.build.inputs import load_data
from batchscale.cli import main
from batchscale.data import DATASETS
from batchscale.errors import ProcessError, RecipeError
from batchscale.recipe import Recipe, load_recipe, recipe_from
from batchscale.report.page import write as write_page

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of loader workers, from Python 3.12 on
_RATIOS = ("ratios", "ratio_iqr", "ratios_per_cpu_second", "ratio_iqr_per_cpu_second")


def _recipe(name: str, workers: int = 2, per_worker: int = 4, **data: Any) -> Recipe:
    return recipe_from(
        {
            "data": {"name": name, **data},
            "model": {"name": "cnn"},
            "minibatch": {"workers": workers, "per_worker": per_worker},
            "epochs": 1,
            "learning_rate": {"reference": 0.05, "reference_minibatch": 32},
        }
    )


def _prepared(recipe: Recipe, folder: Path | None, scratch: Path) -> dict[str, DataAssignment]:
    scratch.mkdir(exist_ok=True)
    made = Preparation(1, scratch, [], lambda: None).of_recipe(recipe, folder)
    return {assignment.contender: assignment for assignment in made.assignments}


def _shades(root: Path, images: int) -> Path:
    """Images of one shade each, 8 levels apart, in two classes."""
    for part, number in (("train", images), ("val", 2)):
        for i in range(number):
            path = root / part / "ab"[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50 + i, 40), (8 * i, 8 * i, 8 * i)).save(path, quality=95)
    return root


@pytest.mark.parametrize("crop", ["scale-aspect", "none"])
@pytest.mark.parametrize("contender", ON_DISK)
def test_every_image_on_disk_comes_once_an_epoch_normalised(contender: str, crop: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(PACKAGES.get(contender, "torch")) is None:
        pytest.skip(f"{PACKAGES[contender]} is not installed")
    recipe = _recipe("folder", augment={"crop": crop, "size": 24, "flip": True})
    assignment = _prepared(recipe, _shades(tmp_path / "set", 32), tmp_path / "scratch")[contender]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (DATASETS["folder"].mean, DATASETS["folder"].std))
    made = minibatches(assignment)
    for _ in range(2):
        seen = Counter[int]()
        for images, labels in itertools.islice(made, 4):
            check(images, labels, (3, 24, 24))
            assert len(images) == 8
            pixels = images * std + mean
            shades = pixels.mean((1, 2, 3))
            assert (pixels - shades.view(-1, 1, 1, 1)).abs().max() < 2  # all of an image alike: all three channels
            seen.update((shades / 8).round().int().tolist())
            assert ((shades / 8).round() % 2 == labels).all()  # of shade 8 i in class i mod 2
        assert seen == Counter(range(32))
    made.close()  # type: ignore[attr-defined]


def _images_of(made: Any, steps: int, mean: float, std: float) -> tuple[Counter[bytes], set[int]]:
    images = [images for images, _ in itertools.islice(made, steps)]
    made.close()
    pixels = (torch.cat(images) * std + mean).round().to(torch.uint8)
    return Counter(image.numpy().tobytes() for image in pixels), {len(i) for i in images}


@pytest.mark.parametrize("contender", [c for c in IN_MEMORY if c != "dataloader_torchvision"])
def test_every_image_in_memory_comes_once_an_epoch_normalised(contender: str, tmp_path: Path) -> None:
    recipe = _recipe("digits", train_images=96)
    assignment = _prepared(recipe, None, tmp_path)[contender]
    source, pixels = DATASETS["digits"], load_data(recipe, None).train.part(slice(None))[0]
    seen, sizes = _images_of(minibatches(assignment), 12, source.mean[0], source.std[0])
    assert seen == Counter(image.numpy().tobytes() for image in pixels)
    assert sizes == {8}


def test_torchvision_delivers_its_data_set(data_folder: Path, tmp_path: Path) -> None:
    assignment = _prepared(_recipe("fashion_mnist", train_images=96), data_folder, tmp_path)["dataloader_torchvision"]
    source = DATASETS["fashion_mnist"]
    seen, _ = _images_of(minibatches(assignment), 12, source.mean[0], source.std[0])
    first = source.load(data_folder).train_images[:96]
    assert seen == Counter(image.numpy().tobytes() for image in first)


def test_tensors_are_augmented_where_the_recipe_augments(tmp_path: Path) -> None:
    recipe = _recipe("digits", train_images=96, augment={"flip": True, "crop": "padded", "padding": 2})
    assignment = _prepared(recipe, None, tmp_path)["dataloader_tensor"]
    source, pixels = DATASETS["digits"], load_data(recipe, None).train.part(slice(None))[0]
    seen, _ = _images_of(minibatches(assignment), 12, source.mean[0], source.std[0])
    assert len(seen - Counter(image.numpy().tobytes() for image in pixels)) > 48


def test_what_is_no_minibatch_to_train_on_is_refused() -> None:
    images, labels = torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    check(images, labels, (3, 8, 8))
    for wrong in ((images.byte(), labels), (images, labels[:3]), (images[..., :7], labels)):
        with pytest.raises(ProcessError, match="are to be made"):
            check(*wrong, (3, 8, 8))


def test_every_peer_has_its_loader() -> None:
    assert set(LOADERS) == {*ON_DISK, *IN_MEMORY} - set(OURS)
    assert set(PACKAGES) <= set(LOADERS)


def test_photographs_are_all_different_and_as_large_as_said() -> None:
    files = list(itertools.islice(photographs(), 8))
    assert {name for name, _, _ in files} == {"china", "flower"}
    pixels = [np.asarray(Image.open(io.BytesIO(content))) for _, _, content in files]
    assert {p.shape for p in pixels} == {(375, 500, 3)}
    assert len({p.tobytes() for p in pixels}) == 8


def test_sample_passes_over_bad_files_and_ends_at_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_classes(tmp_path / "set" / "train", {"x": 12, "y": 8})
    write_classes(tmp_path / "set" / "val", {"x": 1, "y": 1})
    written[3].write_bytes(b"no image")
    train: Any = load_data(_recipe("folder"), tmp_path / "set").train
    whole = Sample(train, least=4)
    assert Counter(content for _, _, content in whole) == Counter(p.read_bytes() for p in written if p != written[3])
    assert whole.unreadable == 1
    monkeypatch.setattr(sample, "_SAMPLE_BYTES", 1)
    few = list(Sample(train, least=9))
    assert 8 <= len(few) <= 9
    found = write(iter(few), tmp_path, lambda: None)
    assert sorted(found.folders) == [FEED, PACKED]
    classes = {p.read_bytes(): p.parent.name for p in (found.folders[FEED] / "train").rglob("*.JPEG")}
    assert classes == {content: label for label, _, content in few}
    assert {p.read_bytes(): "xy".index(p.parent.name) for p in written if p.read_bytes() in classes} == {
        content: int(label) for content, label in classes.items()
    }


def test_minibatches_too_large_for_memory_have_fewer_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MINIBATCH_BYTES", 4 * 64 * 3 * 4 + 1)  # three workers of four digits
    notes: list[str] = []
    preparation = Preparation(1, tmp_path, notes, lambda: None)
    assignment = preparation.of_recipe(_recipe("digits", workers=300), None).assignments[0]
    assert (assignment.recipe.minibatch.workers, assignment.recipe.minibatch.per_worker) == (3, 4)
    assert notes == ["a minibatch has 3 of the recipe's 300 workers: as many as 0 MB of floats hold"]
    with pytest.raises(RecipeError, match="must not exceed the"):
        preparation.of_recipe(_recipe("digits", workers=3000), None)


class _Still:
    """Stands for a contender that has been measured."""

    def __init__(self, name: str) -> None:
        self.name = name


def _measured(seconds: dict[str, list[float]]) -> list[Any]:
    return [
        Measured(_Still(name), 2, 1.0, [Block(2, s, 2 * s, [{"images": 16}]) for s in times])  # type: ignore[arg-type]
        for name, times in seconds.items()
    ]


def _document(seconds: dict[str, list[float]], data_name: str = "folder") -> dict[str, Any]:
    assignment = DataAssignment(_recipe(data_name).model_dump(mode="json"), None, "", "", 1, 2, FEED)
    augment = assignment.recipe.data.augment.model_dump(mode="json")
    data = MeasuredData(
        name="photographs", what="crops", images=9, mean_bytes=50, image_shape=[3, 8, 8], augment=augment
    )
    return document("photographs", Prepared((assignment,), data), _measured(seconds), ["a note"]).model_dump()


def test_document_of_known_blocks(tmp_path: Path) -> None:
    found = _document(
        {
            FEED: [2.0, 1.0, 1.0],
            PACKED: [1.0, 1.0, 1.0],
            PIL: [8.0, 4.0, 4.0],
            "dataloader_v2": [4.0, 2.0, 1.0],
        }
    )
    assert found["rows"][0] == {"name": FEED, "images_per_second": 16.0, "images_per_cpu_second": 8.0, "iqr": 4.0}
    assert found["best_peer"] == "dataloader_v2"
    assert found["ratios"] == {"to_best_peer": 2.0, "to_pil": 4.0, "packed_to_files": 1.0}
    assert found["ratio_iqr"] == {"to_best_peer": 0.5, "to_pil": 0.0, "packed_to_files": 0.5}
    assert found["not_measurable_now"] == ["to_best_peer", "packed_to_files"]
    assert found["conditions"]["rounds"] == 3
    assert found["data"]["images"] == 9
    table = as_table(found)
    assert sum("not measurable now" in line for line in table.splitlines()) == 3
    assert "9 images of 50 bytes on average; not augmented" in table
    assert "note: a note" in table
    (tmp_path / "data.json").write_text(json.dumps(found), encoding="utf-8")
    page = write_page(tmp_path).path.read_text(encoding="utf-8")
    assert "16 images/s, 2.00 times the best peer" in page
    assert "batchscale bench data minibatch.workers=2 minibatch.per_worker=4 --threads 2 --json" in page


def test_document_without_peers_has_no_ratio_to_one() -> None:
    found = _document({FEED: [1.0, 1.0]}, "digits")
    assert all(found[key] == {"to_best_peer": None, "to_torchvision": None} for key in _RATIOS)
    assert found["best_peer"] is None
    assert "the best peer" not in as_table(found)


def test_a_real_run_leaves_out_what_fails_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(rounds, "_WARM_SECONDS", 0.1)
    monkeypatch.setattr(sample, "PHOTOGRAPHS", 8)
    monkeypatch.setattr(prepare, "PHOTOGRAPHS", 8)
    monkeypatch.setattr(prepare, "ON_DISK_CONTENDERS", (FEED, "nosuch", PIL))
    changes = ["data.name=folder", "data.augment.size=24", "minibatch.workers=2", "minibatch.per_worker=4"]
    found = measure.bench_data(
        load_recipe("imagenet-resnet50-1h", changes), "photographs", None, 1, own_photographs=True,
        budget=Budget(total_seconds=0.0, shortest_seconds=0.05, min_rounds=2),
    ).result  # fmt: skip
    assert [row["name"] for row in found["rows"]] == [FEED, PIL]
    assert all(row["images_per_second"] > 0 and row["images_per_cpu_second"] > 0 for row in found["rows"])
    assert any(note.startswith("left out: nosuch: rank 0 ended") for note in found["notes"])
    assert found["best_peer"] == PIL
    assert found["ratios"]["packed_to_files"] is None
    assert found["conditions"]["rounds"] == 2
    assert found["data"]["images"] == 8
    assert not list(tmp_path.iterdir())
    json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["minibatch.workers=9"], "must not exceed the 256 training images; lower minibatch.workers to at most 8"),
        (["digits-cnn", "minibatch.workers=1000"], "must not exceed the"),
        (["mnist-cnn", "--data", "EMPTY"], "4 of 4 files missing"),
        (["imagenet-resnet50-1h", "--data", "EMPTY"], "no folder with train/<class>/<image>"),
        (["--data", "EMPTY"], "data.name='folder': no folder with train/<class>/<image>"),
        (["--data", "EMPTY/nosuch"], "is not a folder"),
        (
            ["data.name=cifar10", "data.augment.crop=none", "data.augment.size=null"],
            "data.name=cifar10: must be folder",
        ),
        (["nosuch"], "nosuch"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "data", *(word.replace("EMPTY", str(tmp_path)) for word in arguments)]) == 2
    err = capsys.readouterr().err.removeprefix("preparing the images\n")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--threads", "--seconds"])
def test_none_is_no_number_of_threads_or_seconds(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "data", option, "0"])
    assert "must be a whole number of at least 1" in capsys.readouterr().err


def _reached(pids: list[int], states: str, seconds: float = 60.0) -> bool:
    """Whether all come to be in one of these states of /proc; "" for gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(_state(pid) in (states or [""]) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def test_between_its_turns_a_contender_stands_still_and_its_workers_die_with_it() -> None:
    recipe = _recipe("digits", augment={"flip": True})
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:  # a short path, for sockets
        assignment = replace(_prepared(recipe, None, Path(scratch) / "s")["dataloader_tensor"], threads=2)
        contender = Contender("dataloader_tensor", assignment, Path(scratch), lambda: None, kind="data", frozen=True)
        try:
            contender.start()
            contender.ready()
            parent = contender._processes[0].pid
            workers = [int(w) for w in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
            assert _reached([parent, *workers], "T")
            block = contender.block(3)
            assert [answer["images"] for answer in block.answers] == [24]
            assert _reached([parent, *workers], "T")
            assert len(workers) == 2
            os.kill(parent, signal.SIGKILL)
            contender._processes[0].wait()
            assert _reached(workers, "")
        finally:
            contender.close()


@pytest.mark.slow
def test_nothing_stays_behind_when_stopped(tmp_path: Path) -> None:
    arguments = ("digits-cnn", "data.augment.flip=true", "--threads", "2")
    bench = Started("bench", "data", *arguments, environment={"TMPDIR": str(tmp_path)})
    assert bench.process.stderr is not None
    for line in bench.process.stderr:
        if line.startswith("round 1 "):
            break
    assert len(bench.living()) == 5  # the parent, batchscale, the DataLoader and its two workers
    bench.process.send_signal(signal.SIGINT)
    assert bench.end()[0] == 130
    assert not list(tmp_path.iterdir())
