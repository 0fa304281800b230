"""Layers are counted as arithmetic says, and the shipped tables are those of the nets."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batchscale.build.inputs import load_data
from batchscale.build.layers import counted_pass
from batchscale.build.net_counts import count_net, form_of
from batchscale.cost.step.net_table import COLUMNS, NetTable, net_key, net_of_recipe, shipped_net, shipped_nets
from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe, shipped_names

M, IN, OUT, SIDE = 4, 3, 8, 16

SHARED = Path(os.environ.get("BATCHSCALE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def counts_of(model, inputs):
    model, inputs = model.to("meta"), inputs.to("meta")
    return counted_pass(model, lambda: model(inputs).sum())


def test_a_linear_layer():
    layers = counts_of(nn.Sequential(nn.Linear(IN, OUT), nn.Linear(OUT, OUT)), torch.zeros(M, IN))
    assert list(layers) == ["0", "1", ""]
    assert layers["0"].forward_flops == 2 * M * IN * OUT
    assert layers["0"].backward_flops == 2 * M * IN * OUT  # nothing is asked of the gradient of the input
    assert layers["1"].forward_flops == 2 * M * OUT * OUT
    assert layers["1"].backward_flops == 2 * 2 * M * OUT * OUT
    assert layers["1"].forward_bytes == 4 * (M * OUT + OUT * OUT + OUT + M * OUT)
    assert layers["1"].kept_bytes == 4 * M * OUT


def test_a_convolution():
    layers = counts_of(nn.Sequential(nn.Conv2d(IN, OUT, 3, padding=1), nn.ReLU()), torch.zeros(M, IN, SIDE, SIDE))
    operations = 2 * M * SIDE * SIDE * 9 * IN * OUT
    assert (layers["0"].forward_flops, layers["0"].backward_flops) == (operations, operations)
    assert layers["0"].kept_bytes == 4 * M * IN * SIDE * SIDE
    assert layers["1"].kept_bytes == 4 * M * OUT * SIDE * SIDE
    assert layers["1"].forward_bytes == 2 * 4 * M * OUT * SIDE * SIDE
    assert layers["1"].backward_bytes == 3 * 4 * M * OUT * SIDE * SIDE


class Branches(nn.Module):
    """What a module does itself, beside its children, is its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(IN, IN)
        self.twice = nn.Linear(IN, IN)

    def forward(self, inputs):
        return self.twice(F.relu(self.twice(self.first(inputs) + inputs)))


def test_a_layer_used_twice_counts_twice_and_sums_belong_to_the_module_around():
    layers = counts_of(Branches(), torch.zeros(M, IN))
    assert layers["twice"].forward_flops == 2 * layers["first"].forward_flops
    assert layers[""].forward_flops == 0
    assert layers[""].forward_bytes > 0
    assert layers["twice"].backward_flops == 2 * 2 * 2 * M * IN * IN


def test_it_leaves_the_model_as_it_was():
    model = Branches()
    counts_of(model, torch.zeros(M, IN))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Looks(nn.Module):
    """Asks for a value."""

    def forward(self, inputs):
        return inputs * 2 if inputs.sum() > 0 else inputs


def test_a_layer_that_looks_at_numbers_is_named():
    with pytest.raises(RecipeError, match="its layer 1 fails") as caught:
        counts_of(nn.Sequential(nn.Linear(IN, IN), Looks()), torch.zeros(M, IN))
    assert "\n" not in str(caught.value)


def table_of(name, *overrides):
    recipe = load_recipe(name, list(overrides))
    return NetTable.from_json(count_net(recipe, form_of(recipe)))


FAST = [
    "digits-cnn",
    "cifar10-resnet8",
    "digits-scenes-unet",
    "digits-scenes-labels",
    "keskar-f1-mnist",
    "shakespeare-lstm",
    "shakespeare-transformer",
    "topics-transformer",
]
SLOW = ["imagenet-resnet50-1h", "deepcam-deeplabv3", "imagenet-vgg11", "nuclei-tiramisu", "nuclei-unet"]


def check_table(name):
    shipped = net_of_recipe(load_recipe(name).model_dump(mode="json"))
    assert shipped is not None, "run make nets"
    assert shipped.as_json() == table_of(name).as_json()


@pytest.mark.parametrize("name", FAST)
def test_a_shipped_table_is_what_the_net_counts(name):
    check_table(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_shipped_table_of_a_large_net_is_what_it_counts(name):
    check_table(name)


def test_every_shipped_recipe_has_a_table():
    for name in set(shipped_names()) - {"own"}:
        entries = load_recipe(name).model_dump(mode="json")
        assert net_key(entries) in shipped_nets(), f"{name}: run make nets"


def test_resnet_50_has_the_numbers_that_are_published():
    net = shipped_net("resnet50-3x224x224")
    assert net.parameters.sum() == 25_557_032
    assert net.forward_flops.sum() / 2e9 == pytest.approx(4.09, abs=0.01)  # multiply-adds, as torchvision lists them
    assert net.examples == 1_281_167
    assert net.layers[0] == "conv1"
    assert net.layers[-2] == "fc"
    assert net.gradient_bytes.sum() == 4 * 25_557_032


def test_a_shared_parameter_counts_once_where_forward_meets_it_first():
    net = table_of("topics-transformer")
    model_numbers = 256 * 64 + 64 * 64  # the embedding, which is the last layer too; the places
    places = list(net.layers)
    assert net.parameters[places.index("embedding")] == 256 * 64
    assert net.parameters.sum() > model_numbers
    assert net.unit == "sequences"


def test_operations_grow_with_the_pixels():
    large, small = (
        table_of("nuclei-unet", "model.options.levels=2", *size) for size in ((), ("data.augment.size=128",))
    )
    assert np.allclose(large.forward_flops, 4 * small.forward_flops)
    assert large.forward_flops.any()
    assert (small.parameters == large.parameters).all()


@pytest.mark.slow
def test_a_detector_is_counted_on_real_tensors():
    counted = table_of("digits-scenes-detection")
    shipped = net_of_recipe(load_recipe("digits-scenes-detection").model_dump(mode="json"))
    assert (counted.parameters == shipped.parameters).all()
    assert counted.flops == pytest.approx(shipped.flops, rel=0.02)  # proposals hang on values


@pytest.mark.parametrize("name", ["digits-cnn", "digits-scenes-unet", "digits-scenes-labels", "topics-transformer"])
def test_forms_are_those_of_the_data_that_are_always_there(name):
    recipe = load_recipe(name)
    data, form = load_data(recipe, None), form_of(recipe)
    assert (form.shape, form.classes) == (data.image_shape, data.num_classes)
    assert form.examples in (None, len(data.train))


@pytest.mark.skipif(not (SHARED / "tinyshakespeare").is_dir(), reason="no tinyshakespeare below BATCHSCALE_DATA")
@pytest.mark.parametrize("how", ["sequence=64", "sequence=1000", "tokens=bytes"])
def test_a_text_of_known_length_has_as_many_sequences_as_are_cut_from_it(how):
    recipe = load_recipe("shakespeare-transformer", [f"data.{how}"])
    assert form_of(recipe).examples == len(load_data(recipe, SHARED).train)


def test_a_text_that_is_parted_otherwise_has_a_length_that_is_not_known():
    assert form_of(load_recipe("shakespeare-transformer", ["data.test_share=0.3"])).examples is None


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_has_a_number_a_layer(column):
    for name in set(shipped_nets().values()):
        values = getattr(shipped_net(name), column)
        assert (values >= 0).all()
        assert values.any() or column.endswith("fixed_bytes")
