"""What crosses between host and device in a step, in its feed, in an evaluation: a list, which may only grow shorter.

Each crossing from the device makes the host wait for all that it has launched; each one to it is a copy from memory
that is not pinned. The meta device stands in for a GPU (`support/crossings.py`).
"""

import pytest
import torch
from support.crossings import LATER, META, TO_DEVICE, TO_HOST, Crossings, meta_as_gpu
from support.runs import RECIPE

import batchscale
from batchscale.build.build import build
from batchscale.build.resident import resident
from batchscale.comm import World
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.language.windows import TextWindows
from batchscale.recipe import recipe_from
from batchscale.recipe.optimizer import OPTIMIZERS
from batchscale.training.evaluation import evaluate
from batchscale.worker.precision import LowPrecision

NET = {**RECIPE, "model": {"name": "resnet8"}}

FEED = {(TO_DEVICE, "data/feed/copies.py:begin"): "the bytes of a pass: its images and labels"}
STEP = {(LATER, "training/mail.py:send"): "the step's row, into pinned memory: read one step later"}
EXACT = {
    (TO_HOST, "aggregate/exact.py:_finish"): "whether a value left its range: then the step is repeated",
}
GAIN = {  # of learning_rate.scaling=adascale: the lr is a number of the step's own gradients, so the host asks
    (TO_HOST, "training/gate.py:opens"): "whether the update is taken at all",
}
EVALUATION = {
    (TO_DEVICE, "data/feed/copies.py:begin"): "the bytes of a chunk: its images and labels",
    (TO_HOST, "training/evaluation.py:evaluate"): "the sums of all chunks, once",
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

    def parts(*overrides, splits=None):
        with Crossings() as crossings:
            recipe = recipe_from(NET, overrides)
            opened.append(build(recipe, World(0, 1, META), splits or data.splits(), own_data=True))
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
            passes = list(feed.passes(0))  # a step takes one after the other
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
    """Nothing that is waited for, but of exact mode one number; of the feed once a pass."""
    feed, step, made = feed_and_step(built(*overrides))
    assert made == passes
    assert set(feed) == set(FEED)
    assert sum(feed.values()) in (passes, passes + 1)  # and the next step's first, where it was ready
    assert step == dict.fromkeys({**STEP, **beyond}, 1)


FAST, EXACTLY = "numerics.micro_batch=32", "numerics.exact=true"


def segmented():
    images, masks = (torch.randint(0, most, shape, dtype=torch.uint8) for most, shape in PICTURES)
    return Splits("own", TensorExamples(images, masks), TensorExamples(images, masks), 2)


def labelled():
    images, labels = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.randint(0, 2, (64, 4))
    return Splits("own", TensorExamples(images, labels), TensorExamples(images, labels), 4)


def written():
    tokens = torch.randint(0, 7, (12 * 64 + 1,), dtype=torch.uint8)
    return Splits("own", TextWindows(tokens, 12, "7"), TextWindows(tokens, 12, "7"), 7)


PICTURES = [(256, (64, 1, 8, 8)), (2, (64, 8, 8))]
UNET = "model={name: unet, options: {width: 2, levels: 2}}"
TRANSFORMER = "model={name: transformer, options: {width: 8, layers: 2, heads: 2, dropout: 0.1}}"
TASKS = [("segmentation", UNET, segmented), ("multilabel", "seed=0", labelled), ("language", TRANSFORMER, written)]
"""Beside classification. Detection's own waits, of torchvision, hang on numbers that no meta device has."""


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("task", "model", "splits"), TASKS)
def test_no_task_waits_for_the_device(built, task, model, splits, exact):
    mode = EXACTLY if exact else FAST
    parts = built(f"task={task}", model, mode, "optimizer={name: adamw}", splits=splits())
    _, step, _ = feed_and_step(parts, steps=2)
    assert step == dict.fromkeys({**STEP, **(EXACT if exact else {})}, 2)


def test_class_weights_cross_once(built):
    weighted = "loss={class_weights: [1, 2]}"
    parts = built("task=segmentation", UNET, FAST, weighted, splits=segmented())
    feed_and_step(parts, steps=1)
    _, step, _ = feed_and_step(parts, steps=2)
    assert step == dict.fromkeys(STEP, 2)


def test_a_scaling_rule_that_asks_for_the_gradient_is_alone_in_it(built):
    parts = built(FAST, "numerics.micro_batch=8", "learning_rate.scaling=adascale")
    _, step, _ = feed_and_step(parts)
    assert (set(STEP) & set(step), set(GAIN) <= set(step)) == (set(), True)


FORMS = [
    ("sgd", "nesterov: true"),
    ("sgd_lr_in_buffer", "momentum_correction: false"),
    ("sgd", "momentum_changes: [{epoch: 1, momentum: 0.5}]"),
    ("lars", "momentum: 0"),
]


@pytest.mark.parametrize(
    ("name", "form", "mode"),
    [*((name, "", mode) for mode in (FAST, EXACTLY) for name in OPTIMIZERS), *((*form, FAST) for form in FORMS)],
)
def test_no_optimizer_mixes_devices_or_waits_for_one(built, name, form, mode):
    """The first step, where state begins, and the next."""
    entry = f"optimizer={{name: {name}{form and ', ' + form}}}"
    layers = ("model.name=keskar_f1",) if name == "muon" else ()  # a net of matrices
    _, steps, _ = feed_and_step(built(entry, mode, *layers), steps=2)
    listed = {**STEP, **(EXACT if mode == EXACTLY else {})}
    assert set(steps) == set(listed)


@pytest.mark.parametrize(
    ("overrides", "beyond"),
    [
        (("model.ema_decay=0.9",), {}),
        (("optimizer.clip_norm=0.5",), {}),
        (("optimizer.clip_norm=0.5", "model.ema_decay=0.9", "optimizer={name: lamb}"), {}),
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


@pytest.mark.parametrize("free", [0, 1 << 30])
def test_examples_that_fit_stay_on_the_device_and_a_pass_is_brought_what_was_drawn(built, monkeypatch, free):
    monkeypatch.setattr(resident, "__defaults__", (lambda device: free,))
    parts = built("numerics.micro_batch=16", "data.augment.flip=true", "data.augment.crop=padded")
    feed, _, passes = feed_and_step(parts)
    assert sum(feed.values()) in (passes, passes + 1)
    decided = parts.decided.as_json()["data_on_device"]
    padded = 64 * 3 * 16 * 16
    assert decided == {"kept": free > 0, "bytes": 64 * 3 * 8 * 8 + 64 * 8 + padded, "limit_bytes": free // 4}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_crosses_in_an_evaluation(built, precision):
    parts = built("numerics.micro_batch=32", f"precision={precision}")
    assert isinstance(parts.evaluation, LowPrecision) == (precision == "bf16")
    with Crossings(number=1) as crossings:  # of readable images, and of wrong ones
        evaluate(parts.evaluation, parts.step.task, parts.dataset.test, parts.normalizer, parts.world, chunk_examples=8)
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
