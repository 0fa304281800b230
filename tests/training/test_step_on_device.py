"""A step on a device: the same in any passes, and nothing in it that the host waits for."""

import contextlib
import warnings

import pytest
import torch
from support.on_device import assert_near, on_device, opened, pictures, weights_after

EIGHT = ("model.name=resnet8", "minibatch.workers=8", "minibatch.per_worker=4")


@on_device
@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-9), ("bf16", 0.05)])
def test_a_fast_step_is_the_same_in_one_two_four_and_eight_passes(device, precision, tolerance):
    """To rounding; bfloat16's is coarse."""
    results = []
    for micro_batch in (32, 16, 8, 4):
        with opened(
            device, pictures(), *EIGHT, f"precision={precision}", f"numerics.micro_batch={micro_batch}"
        ) as parts:
            results.append(weights_after(2, parts))
    for other in results[1:]:
        assert_near(results[0], other, tolerance)


@contextlib.contextmanager
def waits_are_errors(device):
    """While it is open, torch raises where the host would wait for the GPU."""
    if device == "cpu":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_device
@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [("fp32", "sgd"), ("bf16", "sgd"), ("fp16", "sgd"), ("fp32", "lars"), ("fp16", "adamw"), ("bf16", "lamb")],
)
def test_the_host_waits_for_nothing_in_a_step_between_two_lines(device, optimizer, precision):
    overrides = (*EIGHT, f"precision={precision}", f"optimizer={{name: {optimizer}}}", "numerics.micro_batch=16")
    with opened(device, pictures(), *overrides) as parts:
        feed = parts.make_feed()
        try:
            for step in range(2):  # where libraries are loaded and state begins
                parts.step(step, feed.passes(step)).read()
            with waits_are_errors(device):
                answers = [parts.step(step, feed.passes(step)) for step in (2, 3)]
            values = [answer.read() for answer in answers]
        finally:
            feed.close()
    assert all(value.trained for value in values)
