"""Volumes (C, D, H, W): a net of one's own plugin trains on them, and a plan counts it in volumes."""

import hashlib
import json

import pytest
from support.plugins import tables_put_back, write_plugin

from batchscale.cli import main

PLUGIN = """
from dataclasses import dataclass

import torch
from torch import nn

from batchscale import plugins
from batchscale.data.image.dataset import Dataset
from batchscale.data.source import Source
from batchscale.models.taking import takes_volumes


@dataclass(frozen=True)
class Cubes(Source):
    def load(self, folder):
        volumes = torch.rand(96, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        labels = (volumes[:, 0, :2].mean((1, 2, 3)) > volumes[:, 0, 2:].mean((1, 2, 3))).long()
        return Dataset(self.name, volumes[:64], labels[:64], volumes[64:], labels[64:], 2)

    def fetch(self, into):
        return into


@takes_volumes
def net(shape, classes):
    return nn.Sequential(
        nn.Conv3d(shape[0], 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, classes)
    )


plugins.register_data("cubes", Cubes("cubes", 2, mean=(0.5,), std=(0.3,)))
plugins.register_model("net_of_cubes", net)
"""
RECIPE = ("digits-cnn", "data.name=cubes", "model.name=net_of_cubes", "minibatch.workers=4", "minibatch.per_worker=8")


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    with tables_put_back():
        write_plugin(tmp_path / "plugins", "cubes_plugin", PLUGIN)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield


def test_they_train_with_the_same_bits_for_every_number_of_processes(tmp_path):
    weights = set()
    for processes in ("1", "2"):
        out = tmp_path / processes
        exact = ("numerics.exact=true", "epochs=2", "--processes", processes, "--plugin", "cubes_plugin")
        assert main(["train", *RECIPE, *exact, "--out", str(out)]) == 0
        weights.add(hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest())
    assert len(weights) == 1


def test_a_plan_speaks_of_volumes(capsys):
    plan = ("--cluster", "dgx-1", "--devices", "1,2,4", "--plugin", "cubes_plugin", "--json")
    assert main(["plan", *RECIPE, *plan]) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == "volumes"


def test_a_net_of_images_says_what_it_needs(capsys):
    assert main(["train", *RECIPE, "model.name=resnet8", "--plugin", "cubes_plugin"]) == 2
    told = capsys.readouterr().err
    assert (
        "model.name=resnet8: needs images (C, H, W), the data has volumes (1, 4, 8, 8); use a model for these" in told
    )
