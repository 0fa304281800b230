"""The feed beside a training that has a stream of its own: every pass holds the images that it is to hold."""

import contextlib

import torch
from support.on_device import on_device, opened, pictures

STEPS = 200


def inputs_of(device, load):
    """The inputs and targets of all steps, as the training's stream finds them; ``load`` keeps it busy meanwhile."""
    overrides = ("epochs=1000", "numerics.micro_batch=16", "minibatch.workers=4", "data.augment.flip=true")
    with opened(device, pictures(), *overrides) as parts:
        feed, kept = parts.make_feed(), []
        side = torch.cuda.Stream() if device == "cuda" else None
        work = torch.ones(load, load, device=device)
        try:
            with torch.cuda.stream(side) if side else contextlib.nullcontext():
                for step in range(STEPS):
                    for batch in feed.passes(step):
                        work = work @ work / load  # ones again: the copies below run behind it
                        kept.append((batch.inputs.clone(), batch.targets.clone()))
                    del batch
            if side:
                side.synchronize()
        finally:
            feed.close()
        return [(inputs.cpu(), targets.cpu()) for inputs, targets in kept]


@on_device
def test_no_pass_is_written_before_it_is_read_on_a_side_stream(device):
    ours, theirs = inputs_of(device, 2048 if device == "cuda" else 8), inputs_of("cpu", 8)
    assert len(ours) == 2 * STEPS
    for (inputs, targets), (expected_inputs, expected_targets) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(inputs, expected_inputs, rtol=1e-6, atol=1e-6)
        assert torch.equal(targets, expected_targets)
