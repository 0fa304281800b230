"""The device of a process, on the machine at hand."""

import pytest
import torch
from support.on_device import GPU, on_device

from batchscale.comm.world.device import device_text
from batchscale.launch.hardware import choose_device
from batchscale.recipe import load_recipe


@on_device
def test_the_device_that_is_asked_for_is_chosen_and_has_a_name(device):
    chosen = choose_device(load_recipe("digits-cnn", [f"execution.device={device}"]))
    assert chosen.type == device
    assert torch.ones(2, device=chosen).sum().item() == 2
    assert device_text(chosen, []).startswith("cpu" if device == "cpu" else torch.cuda.get_device_name(0))


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_a_gpu_is_taken_by_itself(device):
    assert choose_device(load_recipe("digits-cnn", [])) == torch.device(device, 0)
