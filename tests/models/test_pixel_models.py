"""Nets for segmentation from libraries: by name, never with a download, their auxiliary classifiers on."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torchvision.models import segmentation

import batchscale
from batchscale.data.examples import Splits, TensorExamples
from batchscale.errors import RecipeError
from batchscale.models import named_model


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)


@pytest.mark.parametrize(
    ("name", "parameters"),  # as torchvision's documentation counts them, for 21 classes and three channels
    [("deeplabv3_mobilenet_v3_large", 11_029_328), ("lraspp_mobilenet_v3_large", 3_221_538)],
)
@pytest.mark.parametrize("channels", [3, 5])
def test_torchvision_s_are_taken_by_name_with_the_data_s_channels(name, parameters, channels):
    model = named_model(f"torchvision/{name}", (channels, 32, 32), 21)
    outputs = model.train()(torch.zeros(2, channels, 32, 32))
    auxiliary = {"aux"} if name.startswith("deeplab") else set()
    assert outputs.keys() == {"out"} | auxiliary
    assert all(logits.shape == (2, 21, 32, 32) for logits in outputs.values())
    first = 16 * 3 * 3  # weights of a channel in the first convolution
    assert sum(p.numel() for p in model.parameters()) == parameters + (channels - 3) * first


@pytest.mark.parametrize(("name", "parameters"), [("fcn_resnet50", 35_322_218), ("deeplabv3_resnet50", 42_004_074)])
def test_their_resnets_have_the_published_counts(name, parameters):
    model = named_model(f"torchvision/{name}", (3, 32, 32), 21)
    assert sum(p.numel() for p in model.parameters()) == parameters
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    theirs.load_state_dict(model.state_dict())  # a file of torchvision's weights fits


def pairs():
    images = torch.arange(8 * 3 * 32 * 32).view(8, 3, 32, 32).remainder(251).to(torch.uint8)
    masks = (images[:, 0] > 120).to(torch.uint8)
    return Splits("own", TensorExamples(images, masks), TensorExamples(images[:2], masks[:2]), 2)


RECIPE = {
    "data": {"name": "own"},
    "task": "segmentation",
    "model": {"name": "torchvision/deeplabv3_mobilenet_v3_large"},
    "minibatch": {"workers": 2, "per_worker": 2},
    "epochs": 1,
    "learning_rate": {"reference": 0.01, "reference_minibatch": 4},
    "numerics": {"threads": 1},
    "execution": {"device": "cpu"},
}


@pytest.mark.parametrize("exact", ["numerics.exact=true", "numerics.exact=false"])
def test_batch_norm_over_one_pooled_value_is_refused_before_training(exact, tmp_path):
    """DeepLabv3 pools an image to 1 x 1: a worker of one image has one value a channel there."""
    with pytest.raises(RecipeError, match=r"per_worker=1.*sees one value a channel.*minibatch.per_worker=2 or more"):
        batchscale.train(RECIPE, ["minibatch.per_worker=1", exact], data=pairs(), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_deeplab_is_trained_with_its_auxiliary_classifier():
    result = batchscale.train(RECIPE, data=pairs(), quiet=True)
    assert result.status == "done"
    assert set(result.scores) == {"iou", "mean-iou", "pixel-accuracy", "classes-absent"}
    binary = batchscale.train(RECIPE, ["loss.kind=binary"], data=pairs(), quiet=True)
    assert binary.status == "done"


def test_a_net_of_pixels_is_no_classifier():
    with pytest.raises(RecipeError, match=r"must give logits \(4, 10\)"):
        batchscale.train("digits-cnn", ["model.name=torchvision/lraspp_mobilenet_v3_large", "minibatch.per_worker=4"],
                         quiet=True)  # fmt: skip


def test_smp_is_optional_and_the_error_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RecipeError, match=r"not installed; run pip install 'batchscale\[smp\]'"):
        named_model("smp/unet", (1, 32, 32), 2)


def test_smp_s_are_built_without_a_download(monkeypatch):
    """By a stand-in with the library's create_model; the library itself is heavy."""
    calls = []

    def create_model(arch, encoder_name="resnet34", encoder_weights="imagenet", in_channels=3, classes=1):
        if encoder_name == "resnet":
            raise KeyError("Wrong encoder name `resnet`,\n supported encoders: ...")
        calls.append((arch, encoder_name, encoder_weights, in_channels, classes))
        return nn.Conv2d(in_channels, classes, 1)

    library = ModuleType("segmentation_models_pytorch")
    library.create_model, library.MODEL_ARCHITECTURES_MAPPING = create_model, {"unet": object, "fpn": object}
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", library)
    named_model("smp/unet", (1, 32, 32), 2)
    named_model("smp/fpn.tu-resnet18.a1_in1k", (4, 32, 32), 3)
    assert calls == [("unet", "resnet34", None, 1, 2), ("fpn", "tu-resnet18.a1_in1k", None, 4, 3)]
    with pytest.raises(RecipeError, match=r"no network of smp; the nearest is smp/unet"):
        named_model("smp/unett", (1, 32, 32), 2)
    with pytest.raises(RecipeError, match=r"cannot be built on encoder 'resnet' .*; name one of") as error:
        named_model("smp/unet.resnet", (1, 32, 32), 2)
    assert "\n" not in str(error.value)
