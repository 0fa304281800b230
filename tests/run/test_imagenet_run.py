"""A run shaped as ImageNet's: class folders of JPEG, scale-and-aspect crops, 8 workers of 4; and its mistakes."""

from __future__ import annotations

import gc
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.datafiles import refused
from support.launching import run
from support.pictures import jpeg, photographs, write_set
from support.processes import decoders, soon
from support.worlds import in_processes, trained
from torch import nn

from batchscale.cli import main
from batchscale.comm import World
from batchscale.data import Reading, open_dataset
from batchscale.data.feed import Normalizer
from batchscale.recipe import shipped_names
from batchscale.task import Classification
from batchscale.training.evaluation import evaluate

RECIPE = """\
data: {name: folder, augment: {crop: scale-aspect, size: 64, flip: true}}
model: {name: resnet8}
minibatch: {workers: 8, per_worker: 4}
epochs: 2
learning_rate: {reference: 0.1, reference_minibatch: 256}
numerics: {exact: true}
execution: {log_steps: 1, checkpoint_seconds: 0}
"""
BAD = "train/n01443537/n01443537_3.JPEG"
BAD_VAL = "val/n01443537/n01443537_1.JPEG"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 12 validation images; some are photographs where there are any."""
    root = write_set(tmp_path_factory.mktemp("set"), train=16, val=4)
    for i, image in enumerate(photographs(8)):
        (root / "train" / "n01440764" / f"n01440764_{i}.JPEG").write_bytes(jpeg(image))
    (root / "recipe.yaml").write_text(RECIPE)
    return root


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(images / "recipe.yaml"), "--data", str(images), "--out", str(out), *more]


def train(processes: int, recipe: str, overrides: tuple[str, ...], data: Path, out: Path, resume: str = "no") -> dict:
    """The result of a run on so many processes, all with the same weights."""
    if processes == 1:
        return trained(0, recipe, overrides, data, out, resume)
    found = in_processes(processes, trained, recipe, overrides, data, out, resume)
    assert len({result["weights_sha256"] for result in found}) == 1
    return found[0]


def cut(out: Path) -> None:
    """A finished run becomes one that was killed after its last checkpoint but one."""
    shutil.rmtree(sorted((out / "checkpoints").iterdir())[-1])
    for file in ("result.json", "weights.safetensors"):
        (out / file).unlink()


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The run on one process, three steps."""
    found = train(1, str(images / "recipe.yaml"), (), images, tmp_path_factory.mktemp("alone") / "run")
    assert found["steps"] == 3
    return found


def test_two_processes_give_the_same_bits(images: Path, alone: dict, tmp_path: Path):
    decoding = ("execution.decode_threads=3", "execution.decoders=processes")
    found = train(2, str(images / "recipe.yaml"), decoding, images, tmp_path / "run")
    for name in ("weights_sha256", "train_loss", "test_loss", "test_error_percent"):
        assert found[name] == alone[name]


def test_a_resume_goes_on_with_the_very_next_image(images: Path, alone: dict, tmp_path: Path):
    """The checkpoint of step 2 on two processes, gone on with on one; from the packed form, by other decoders."""
    recipe, out, packed = str(images / "recipe.yaml"), tmp_path / "run", tmp_path / "packed"
    assert train(2, recipe, (), images, out)["weights_sha256"] == alone["weights_sha256"]
    cut(out)
    assert main(["data", "prepare", "folder", "--data", str(images), "--out", str(packed)]) == 0
    decoding = ("execution.decoders=processes", "execution.decode_threads=2")
    assert train(1, recipe, decoding, packed, out, "yes")["weights_sha256"] == alone["weights_sha256"]
    gc.collect()
    assert soon(lambda: not decoders())  # a run leaves no process behind


def test_a_list_of_images_and_numbered_validation_folders_are_trained_alike(tmp_path: Path):
    """The 1 % and 10 % lists, and ImageNet-V2, whose folders are labels from 0 in the order of the names."""
    write_set(tmp_path, train=8, val=2)
    for number, folder in enumerate(sorted((tmp_path / "val").iterdir())):
        folder.rename(tmp_path / "val" / str(number))
    names = sorted(file.name for file in (tmp_path / "train").rglob("*.JPEG"))[::2]
    (tmp_path / "half.txt").write_text("\n".join(names) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    chosen = (f"data.subset={tmp_path / 'half.txt'}", "data.labels=numbers", "minibatch.per_worker=1", "epochs=1")
    runs = [train(k, str(tmp_path / "recipe.yaml"), chosen, tmp_path, tmp_path / f"run{k}") for k in (1, 2)]
    assert runs[0]["weights_sha256"] == runs[1]["weights_sha256"]
    assert runs[0]["test_error_percent"] == runs[1]["test_error_percent"]
    dataset = open_dataset("folder", tmp_path, Reading(64, tmp_path / "half.txt", labels="numbers"))
    assert len(dataset.train) == len(names)
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_bad_file_ends_the_run_in_one_line_or_is_passed_over_alike(images: Path, alone: dict, tmp_path: Path):
    whole, whole_val = (images / BAD).read_bytes(), (images / BAD_VAL).read_bytes()
    try:
        (images / BAD).write_bytes(whole[: len(whole) // 3])
        code, said, err = run(*arguments(images, tmp_path / "stopped"), "--processes", "2", "--json")
        assert code == 2
        document = json.loads(said)
        assert document == json.loads((tmp_path / "stopped" / "result.json").read_text())
        lines = [line for line in err.splitlines() if line.startswith("batchscale:")]
        assert len(lines) == 1
        assert str(images / BAD) in lines[0]
        assert "data.skip_bad=true" in lines[0]
        assert (document["status"], document["error"]) == ("failed", lines[0].removeprefix("batchscale: "))
        (images / BAD_VAL).write_bytes(b"")
        passing = ("data.skip_bad=true", "numerics.evaluation_chunk=5")
        found = [train(w, str(images / "recipe.yaml"), passing, images, tmp_path / str(w)) for w in (1, 2)]
    finally:
        (images / BAD).write_bytes(whole)
        (images / BAD_VAL).write_bytes(whole_val)
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"] != alone["weights_sha256"]
    lines = [(tmp_path / w / "evaluations.jsonl").read_text() for w in "12"]
    assert lines[0] == lines[1]
    assert {json.loads(line)["images"] for line in lines[0].splitlines()} == {11}
    for w in "12":
        skipped = json.loads((tmp_path / w / "skipped.json").read_text())
        assert list(skipped) == [str(images / BAD), str(images / BAD_VAL)]
        assert "truncated" in skipped[str(images / BAD)]


def test_an_evaluation_is_over_the_images_that_can_be_read(tmp_path: Path):
    whole = open_dataset("folder", write_set(tmp_path, 1, 4), Reading(size=8)).test
    for bad in (0, 1, 5, 11):
        Path(whole.entries.name(bad)).write_bytes(b"")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3)).eval()
    normalizer = Normalizer([127.0] * 3, [60.0] * 3, torch.float32, torch.channels_last, torch.device("cpu"))
    test = open_dataset("folder", tmp_path, Reading(size=8, skip_bad=True)).test
    task = Classification(3)
    found = evaluate(model, task, test, normalizer, World(), 2)  # the first chunk holds no image
    expected = evaluate(model, task, whole.select(np.array([2, 3, 4, 6, 7, 8, 9, 10])), normalizer, World(), 3)
    assert (found.examples, found.counts) == (8, expected.counts)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    with refused("not one of 2 images can be read"):
        evaluate(model, task, test.select(np.array([0, 11])), normalizer, World(), 2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.name=digits"], "data.augment.crop is for images on disk, and data.name=digits is not"),
        (["data.augment.crop=padded"], "data.augment.crop=padded is for images of one size"),
        (
            ["data.name=mnist", "data.augment.crop=none", "data.augment.size=null", "data.skip_bad=true"],
            "data.skip_bad",
        ),
        (["data.subset=/no/such/list"], "data.subset=/no/such/list"),
        (["data.name=imagenet"], "3 classes: imagenet has 1000"),
    ],
)
def test_what_does_not_fit_is_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides, said
):
    assert main(arguments(images, tmp_path / "run", *overrides)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


TINY = (
    "data.name=folder", "data.augment.size=32", "minibatch.workers=8", "minibatch.per_worker=4", "epochs=2",
    "learning_rate.warmup.epochs=1", "learning_rate.decay.epochs=[1.5]", "numerics.exact=true",
)  # fmt: skip


@pytest.mark.parametrize("model", ["resnet8", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_the_recipe_of_one_hour_made_tiny_is_exact_and_goes_on(images: Path, tmp_path: Path, model: str):
    """imagenet-resnet50-1h on 3 classes of 32x32: three steps on two processes; the same bits resumed on one."""
    recipe, overrides, out = "imagenet-resnet50-1h", (*TINY, f"model.name={model}"), tmp_path / "run"
    whole = train(2, recipe, overrides, images, out)
    assert (whole["steps"], whole["status"], whole["workers"]) == (3, "done", 8)
    cut(out)
    assert train(1, recipe, overrides, images, out, "yes")["weights_sha256"] == whole["weights_sha256"]


GROWN = {  # the changes of the recipes whose minibatch grows, after the first step of a run this small
    "imagenet-resnet50-flash": "phases: [{epoch: 0.1, per_worker: 4}], learning_rate: stays",
    "imagenet-resnet50-increase-minibatch": "phases: [{epoch: 0.1, workers: 8}]",
}
SMALLER = (
    "data.name=folder", "data.augment.size=32", "model.name=resnet8", "minibatch.workers=4",
    "minibatch.per_worker=2", "epochs=0.3", "numerics.micro_batch=8", "numerics.threads=1",
    "execution.log_steps=1", "execution.decode_threads=1",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in shipped_names() if name.startswith("imagenet")])
def test_every_imagenet_recipe_trains(images: Path, tmp_path: Path, name: str):
    """All of the recipe but its size: ResNet-8, 3 classes of 32x32, 4 workers of 2 images, two steps."""
    growth = [f"minibatch.growth={{kind: phases, {GROWN[name]}}}"] if name in GROWN else []
    out = tmp_path / "run"
    assert main(["train", name, *SMALLER, *growth, "--data", str(images), "--out", str(out)]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["minibatch"] for line in lines] == ([8, 16] if name in GROWN else [8, 8])
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert json.loads((out / "result.json").read_text())["status"] == "done"
