"""What crosses between host and device in a step, in its feed, in an evaluation: a list, which may only grow shorter.

Each crossing from the device makes the host wait for all that it has launched; each one to it is a copy from memory
that is not pinned. The meta device stands in for a GPU (`support/crossings.py`).
"""

import pytest
import torch
from support.crossings import META, TO_DEVICE, TO_HOST, Crossings, meta_as_gpu
from support.runs import RECIPE

import batchscale
from batchscale.build.build import build
from batchscale.comm import World
from batchscale.recipe import recipe_from
from batchscale.recipe.optimizer import OPTIMIZERS
from batchscale.training.evaluation import evaluate

NET = {**RECIPE, "model": {"name": "resnet8"}}

FEED = {
    (TO_DEVICE, "data/feed.py:_tensor"): "the images of a pass, as bytes",
    (TO_DEVICE, "data/feed.py:_make"): "its labels",
}
STEP = {
    (TO_DEVICE, "aggregate/flat.py:count_used"): "which parameters backward gave a gradient: the hooks run on the host",
    (TO_HOST, "aggregate/flat.py:detach_unused"): "whether some parameter has none: its grad is to be None",
    (TO_HOST, "aggregate/riders.py:finite"): "whether the update is taken at all",
    (TO_HOST, "training/riders.py:update"): "whether some worker passed a batch norm over: its average waits",
    (TO_HOST, "aggregate/riders.py:numbers"): "the step's values, for the loop: the one that is to stay",
}
EXACT = {
    (TO_HOST, "aggregate/exact.py:_finish"): "whether a value left its range: then the step is repeated",
}
EVALUATION = {
    (TO_DEVICE, "data/feed.py:_tensor"): "the images of a chunk",
    (TO_DEVICE, "training/evaluation.py:evaluate"): "its labels",
    (TO_HOST, "training/evaluation.py:evaluate"): "the sums of all chunks, once",
}
_RATES = {
    (TO_HOST, "update/lars.py:local_rates"): "the ratio of every tensor: the fused kernel takes numbers of Python"
}
OF_OPTIMIZER = {
    "lars": _RATES,
    "larc": _RATES,
    "lamb": {(TO_HOST, "update/lamb.py:_ratios"): "the ratio of every tensor"},
}
NOISE = {(TO_DEVICE, "worker/noise.py:__call__"): "the factors of a pass: drawn on the host, the same for every device"}


@pytest.fixture(scope="module")
def data():
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    labels = torch.randint(0, 4, (64,))
    return batchscale.Dataset("own", images, labels, images[:20], labels[:20], 4)


@pytest.fixture
def built(data, monkeypatch):
    """(overrides, of resnet8 with 4 workers of 8 images) -> a run's parts with the meta device for a GPU."""
    opened = []

    def parts(*overrides):
        with Crossings() as crossings:
            opened.append(build(recipe_from(NET, overrides), World(0, 1, META), data.splits(), own_data=True))
        assert crossings.mixed == []
        return opened[-1]

    with meta_as_gpu(monkeypatch):
        yield parts
    for one in opened:
        one.close()


def feed_and_step(parts, steps=1):
    """The crossings of a feed, and of some steps; the passes of a step."""
    feed = parts.make_feed()
    try:
        with Crossings() as feeding:
            passes = feed.passes(0)
    finally:
        feed.close()
    with Crossings() as stepping:
        for step in range(steps):
            parts.step(step, passes).read()
    assert feeding.mixed == stepping.mixed == []
    return feeding.counts, stepping.counts, len(passes)


@pytest.mark.parametrize(
    ("overrides", "passes", "beyond"),
    [
        (("numerics.micro_batch=32",), 1, {}),
        (("numerics.micro_batch=16",), 2, {}),
        (("numerics.micro_batch=16", "batch_norm.span=2"), 2, {}),
        (("numerics.micro_batch=32", "precision=bf16"), 1, {}),
        (("numerics.micro_batch=32", "precision=fp16"), 1, {}),
        (("numerics.exact=true",), 4, EXACT),
        (("numerics.micro_batch=16", "execution.noise_scale_steps=1"), 2, {}),
        (("numerics.micro_batch=16", "execution.noise_scale_steps=1", "precision=fp16"), 2, {}),
    ],
)
def test_what_crosses_in_a_step_and_its_feed(built, overrides, passes, beyond):
    """Once a step, and of exact mode's used parameters once a worker; of the feed once a pass."""
    feed, step, made = feed_and_step(built(*overrides))
    assert made == passes
    assert feed == dict.fromkeys(FEED, passes)
    used = (TO_DEVICE, "aggregate/flat.py:count_used")
    assert step == {**dict.fromkeys({**STEP, **beyond}, 1), used: 4 if beyond else 1}


FORMS = [
    ("sgd", "nesterov: true"),
    ("sgd_lr_in_buffer", "momentum_correction: false"),
    ("sgd", "momentum_changes: [{epoch: 1, momentum: 0.5}]"),
    ("lars", "momentum: 0"),
]


FAST, EXACTLY = "numerics.micro_batch=32", "numerics.exact=true"


@pytest.mark.parametrize(
    ("name", "form", "mode"),
    [*((name, "", mode) for mode in (FAST, EXACTLY) for name in OPTIMIZERS), *((*form, FAST) for form in FORMS)],
)
def test_no_optimizer_mixes_devices_and_its_crossings_are_listed(built, name, form, mode):
    """The first step, where state begins, and the next."""
    entry = f"optimizer={{name: {name}{form and ', ' + form}}}"
    layers = ("model.name=keskar_f1",) if name == "muon" else ()  # a net of matrices
    _, steps, _ = feed_and_step(built(entry, mode, *layers), steps=2)
    listed = {**STEP, **OF_OPTIMIZER.get(name, {}), **(EXACT if mode == EXACTLY else {})}
    assert set(steps) == set(listed)


@pytest.mark.parametrize(
    ("overrides", "beyond"),
    [
        (("model.ema_decay=0.9",), {}),
        (("optimizer.clip_norm=0.5",), {}),
        (("optimizer.clip_norm=0.5", "model.ema_decay=0.9", "optimizer={name: lamb}"), OF_OPTIMIZER["lamb"]),
        (("batch_norm.running=recomputed",), {}),
        (("batch_norm.running=none",), {}),
        (("loss.label_smoothing=0.1", "data.augment.flip=true"), {}),
        (("optimizer.gradient_noise=0.3", "numerics.micro_batch=8"), NOISE),
        (("numerics.exact=true", "numerics.micro_batch=auto", "batch_norm.span=2"), EXACT),
    ],
)
def test_what_stands_around_an_update_brings_no_crossing_but_its_own(built, overrides, beyond):
    _, step, _ = feed_and_step(built("numerics.micro_batch=32", *overrides))
    assert set(step) == {*STEP, *beyond}


def test_what_crosses_in_an_evaluation(built):
    parts = built("numerics.micro_batch=32")
    with Crossings(number=1) as crossings:  # of readable images, and of wrong ones
        evaluate(parts.model, parts.step.task, parts.dataset.test, parts.normalizer, parts.world, chunk_examples=8)
    assert crossings.mixed == []
    assert crossings.counts == {key: 1 if key[0] == TO_HOST else 3 for key in EVALUATION}  # 20 images in 3 chunks


def test_the_harness_sees_what_it_is_to_see():
    device, host = torch.ones(2, 3, device="meta"), torch.ones(2, 3)
    with Crossings() as crossings:
        assert (device > 0).all()
        assert float(device.sum()) == 0.0
        device.tolist()
        host.to("meta")
        device.copy_(host)
        torch.tensor([1.0], device="meta")
        device[[0, 1]] += 1
        host.copy_(device)
    assert {kind for kind, _ in crossings.counts} == {TO_DEVICE, TO_HOST}
    assert sum(n for (kind, _), n in crossings.counts.items() if kind == TO_HOST) == 4
    assert sum(n for (kind, _), n in crossings.counts.items() if kind == TO_DEVICE) >= 3
    assert crossings.mixed == []
    with Crossings() as mixing, pytest.raises(RuntimeError):
        device + host
    assert len(mixing.mixed) == 1
