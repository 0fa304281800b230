"""Whole runs on a device: the same bits twice and after a stop, between devices and back, in every precision."""

import json

import pytest
import torch
from support.dues import stop_after
from support.on_device import full_float32, on_device
from support.runs import Dropping, train
from support.runs import data as data
from torch import nn

from batchscale.run.run import Stopped
from batchscale.training.due import DUES

TWO = ("epochs=2",)


def stopped(data, out, step, *overrides, monkeypatch, **options):
    """A run that stops after a step, with a checkpoint."""
    with monkeypatch.context() as patch:
        patch.setitem(DUES, "stop", stop_after(step))
        with pytest.raises(Stopped):
            train(data, out, *TWO, *overrides, **options)


@on_device
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_exact_is_the_same_bits_twice_and_after_a_stop_within_an_epoch(data, tmp_path, monkeypatch, device, precision):
    overrides = (f"execution.device={device}", f"precision={precision}", "numerics.exact=true")
    straight = train(data, None, *TWO, *overrides)
    assert train(data, None, *TWO, *overrides).weights_sha256 == straight.weights_sha256
    stopped(data, tmp_path / "run", 5, *overrides, monkeypatch=monkeypatch)  # of 3.4 steps an epoch
    resumed = train(data, tmp_path / "run", *TWO, *overrides, resume="yes")
    assert (resumed.status, resumed.weights_sha256) == ("done", straight.weights_sha256)


@on_device
@pytest.mark.parametrize("micro_batch", ["auto", "8"])
def test_random_modules_draw_alike_whatever_was_asked_for_a_pass(data, device, micro_batch):
    """A worker's numbers are keyed by it; the second worker's are not the first one's."""
    overrides = (f"execution.device={device}", "numerics.exact=true")
    one = train(data, None, *TWO, *overrides, "numerics.micro_batch=8", model=Dropping())
    other = train(data, None, *TWO, *overrides, f"numerics.micro_batch={micro_batch}", model=Dropping())
    assert one.weights_sha256 == other.weights_sha256
    seeded = train(data, None, *TWO, *overrides, "seed=1", model=Dropping())
    assert seeded.weights_sha256 != one.weights_sha256


class Overflowing(nn.Module):
    """The gradient of its logits overflows above a limit, as scaled."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 4)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        if logits.requires_grad:
            logits.register_hook(lambda g: torch.where(g.abs().max() > 400.0, g * float("inf"), g))
        return logits


@on_device
def test_float16_skips_the_steps_that_overflow_and_recovers(data, device):
    result = train(data, None, *TWO, f"execution.device={device}", "precision=fp16", model=Overflowing())
    assert result.status == "done"
    assert result.skipped_steps == len(result.loss_scales) - 1 > 0
    assert [scale for _, scale in result.loss_scales] == [65536.0 / 2**i for i in range(len(result.loss_scales))]


@on_device
def test_a_run_goes_from_the_device_to_the_cpu_and_back(data, tmp_path, monkeypatch, device):
    out, here = tmp_path / "run", f"execution.device={device}"
    with full_float32():
        straight = train(data, None, *TWO, "precision=fp64")
        stopped(data, out, 2, here, "precision=fp64", monkeypatch=monkeypatch)
        stopped(data, out, 4, "execution.device=cpu", "precision=fp64", monkeypatch=monkeypatch, resume="yes")
        back = train(data, out, *TWO, here, "precision=fp64", resume="yes")
    assert (back.status, back.steps) == ("done", straight.steps)
    assert back.test_loss == pytest.approx(straight.test_loss, rel=1e-6)


@on_device
def test_an_evaluation_is_that_of_the_cpu(data, device):
    """The loss to rounding; of 40 images one may be a tie."""
    with full_float32():
        results = [train(data, None, *TWO, f"execution.device={where}", "precision=fp64") for where in (device, "cpu")]
    ours, theirs = results
    assert ours.test_loss == pytest.approx(theirs.test_loss, rel=1e-6)
    assert abs(ours.test_error_percent - theirs.test_error_percent) <= 100 / 40 + 1e-9


@on_device
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_lines_say_where_the_time_went(data, tmp_path, device, precision):
    """By the device's own clock."""
    out = tmp_path / "run"
    train(data, out, *TWO, f"execution.device={device}", f"precision={precision}")
    for line in (out / "metrics.jsonl").read_text().splitlines():
        phases = json.loads(line)["phase_seconds"]
        assert phases["forward"] > 0
        assert phases["backward"] > 0
        assert all(0 <= seconds < 60 for seconds in phases.values())
