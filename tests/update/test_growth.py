"""A minibatch that grows: every image once an epoch, the lr of each method, runs equal to plain torch."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.dues import stop_after
from support.feeds import N, feed
from support.runs import RECIPE
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build.derive import as_text, derived_numbers
from batchscale.build.planning import plan_of, schedule_of
from batchscale.errors import RecipeError
from batchscale.minibatch import Change, Minibatch, StepPlan
from batchscale.models import MODELS
from batchscale.placement import place_workers
from batchscale.randomness import key, shuffled
from batchscale.recipe import dump_recipe, load_recipe, recipe_from
from batchscale.run.run import Stopped
from batchscale.training.due import DUES


def changes(*phases):
    return tuple(Change(Fraction(str(epoch)), Minibatch(k, n)) for epoch, k, n in phases)


@st.composite
def plans(draw, partial="carry"):
    images = draw(st.integers(20, 300))
    sizes = sorted(draw(st.lists(st.integers(1, images), min_size=1, max_size=4, unique=True)))
    whole = partial == "drop"
    changes_at = st.integers(1, 9) if whole else st.integers(1, 90).map(lambda tenths: tenths / 10)
    epochs = sorted(draw(st.lists(changes_at, min_size=len(sizes) - 1, max_size=len(sizes) - 1, unique=True)))
    grown = changes(*((epoch, 1, size) for epoch, size in zip(epochs, sizes[1:], strict=True)))
    try:
        return StepPlan(Minibatch(1, sizes[0]), images, 10, partial, grown)
    except RecipeError as error:
        assert "must leave a step before it and one after it" in str(error)  # noqa: PT017 (the only way to be refused)
        assume(False)


def positions(plan):
    """Where each step's images are: (epoch, place) of every one, in order."""
    for step in range(plan.total_steps):
        phase = plan.phase(step)
        first = phase.position(step)
        yield [divmod(x, phase.epoch_images) for x in range(first, first + phase.minibatch.images)]


@given(plans())
def test_carrying_sees_every_image_of_every_epoch_once_across_changes(plan):
    seen = list(itertools.chain.from_iterable(positions(plan)))
    assert seen == [divmod(x, plan.training_images) for x in range(len(seen))]
    assert 0 <= len(seen) - 10 * plan.training_images < plan.phases[-1].minibatch.images
    assert plan.images(plan.total_steps) == len(seen)


@given(plans(partial="drop"))
def test_dropping_leaves_out_less_than_a_minibatch_of_every_epoch(plan):
    epochs = {}
    for step, places_of_step in enumerate(positions(plan)):
        epochs.setdefault(places_of_step[0][0], []).append((step, [place for _, place in places_of_step]))
    assert sorted(epochs) == list(range(10))
    for steps in epochs.values():
        places = [place for _, places_of_step in steps for place in places_of_step]
        assert places == list(range(len(places)))
        kn = plan.minibatch_at(steps[0][0]).images
        assert plan.training_images - len(places) < kn
        assert {plan.minibatch_at(step).images for step, _ in steps} == {kn}


@given(plans())
def test_steps_and_epochs_are_each_others_inverse_and_changes_come_when_they_are_due(plan):
    epochs = [plan.epoch_at(step) for step in range(plan.total_steps + 1)]
    assert all(a < b for a, b in itertools.pairwise(epochs))
    assert [plan.steps(epoch) for epoch in epochs] == list(range(plan.total_steps + 1))
    assert sum(plan.ends_epoch(step) for step in range(plan.total_steps)) == plan.epochs_done(plan.total_steps) >= 10
    for change, phase in zip(plan.growth, plan.phases[1:], strict=True):
        assert epochs[phase.first_step - 1] < change.epoch <= epochs[phase.first_step]
        assert plan.minibatch_at(phase.first_step) == change.minibatch != plan.minibatch_at(phase.first_step - 1)
    assert [step for p in plan.phases for step in plan.steps_of(p)] == list(range(plan.total_steps))


def test_the_feed_goes_on_with_the_very_next_image_whatever_k_n_and_w():
    grown = changes((0.7, 4, 5), (1.5, 4, 10))
    plan = StepPlan(Minibatch(2, 5), N, 3, growth=grown)
    expected = np.concatenate([shuffled(key(3, epoch, 0), np.arange(N), N) for epoch in range(4)])
    for processes in (1, 2):
        hosted = [lambda k, r=r, w=processes: place_workers(k, w)[r] for r in range(processes)]
        parts = [feed(2, 5, workers, growth=grown, pass_workers=2) for workers in hosted]
        passes = [batch.targets for step in range(plan.total_steps) for part in parts for batch in part.passes(step)]
        for part in parts:
            part.close()
        seen = torch.cat(passes).tolist()
        assert seen == expected[: len(seen)].tolist()
        assert len(seen) == plan.images(plan.total_steps) >= 3 * N
        assert {len(labels) for labels in passes} == ({10} if processes == 1 else {5, 10})


def test_a_pass_holds_whole_groups_also_when_n_grows():
    part = feed(6, 4, range(6), growth=changes((1, 6, 5)), pass_workers=4, span=2)
    pass_images = [[len(batch.targets) for batch in part.passes(step)] for step in (0, 4, 5)]
    part.close()
    # 5 steps of 24 images; then groups of 10 in passes of at most 16
    assert pass_images == [[16, 8], [16, 8], [10, 10, 10]]


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (110,), generator=generator)
    images = torch.randint(0, 120, (110, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return batchscale.Dataset("own", images, labels, images[:40], labels[:40], 4)


GROWN = (
    "minibatch={workers: 2, per_worker: 8, growth: "
    "{kind: phases, phases: [{epoch: 1, workers: 4}, {epoch: 2, per_worker: 16}]}}"
)
SIZES = [(2, 8)] * 7 + [(4, 8)] * 4 + [(4, 16)] * 2
"""By hand: 110 images an epoch; 7 x 16 = 112 >= 110; 112 + 4 x 32 = 240 >= 220; 240 + 2 x 64 = 368 >= 330."""


def plain_torch(dataset):
    """The run of GROWN in a loop of plain torch, its sizes and images by hand; running averages debiased at the end."""
    torch.manual_seed(key(0, 200) >> 1)
    model = MODELS["cnn"]((1, 8, 8), 4).double()
    sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    pixels = dataset.train_images.double()
    pixels = (pixels - pixels.mean()) / pixels.std(correction=0)
    order = np.concatenate([shuffled(key(0, epoch, 0), np.arange(110), 110) for epoch in range(4)])
    averages = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in averages:
        norm.running_var.zero_()
    first = 0
    for workers, n in SIZES:
        sgd.zero_grad()
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        after = {name: torch.zeros_like(b) for name, b in buffers.items()}
        for worker in range(workers):
            model.load_state_dict(buffers, strict=False)
            part = order[first + worker * n : first + (worker + 1) * n]
            loss = F.cross_entropy(model(pixels[part]), dataset.train_labels[part], reduction="sum")
            (loss / (workers * n)).backward()
            for name, b in model.named_buffers():
                after[name] += b // workers if b.dtype == torch.int64 else b / workers
        model.load_state_dict(
            {name: buffers[name] + 1 if b.dtype == torch.int64 else b for name, b in after.items()}, strict=False
        )
        for p in model.parameters():
            if id(p) not in norms:
                p.grad += 1e-4 * p.detach()
        first_steps, all_first_steps = first / 16, 368 / 16
        share = 1 if first_steps < 3 else 0.5 * (1 + math.cos(math.pi * (first_steps - 3) / (all_first_steps - 3)))
        sgd.param_groups[0]["lr"] = 0.05 * workers * n / 32 * share
        sgd.step()
        first += workers * n
    for norm in averages:
        norm.running_mean.div_(1 - 0.9 ** len(SIZES))
        norm.running_var.div_(1 - 0.9 ** len(SIZES))
    return model.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_lr_in_buffer"])
def test_a_growing_run_equals_a_loop_of_plain_torch(data, tmp_path, optimizer):
    overrides = [GROWN, "precision=fp64", "numerics.micro_batch=16", f"optimizer.name={optimizer}"]
    result = batchscale.train(RECIPE, overrides, data=data, out=tmp_path / "run", quiet=True)
    weights, expected = load_file(tmp_path / "run" / "weights.safetensors"), plain_torch(data)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-9, atol=1e-11)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["minibatch"] for line in lines] == [k * n for k, n in SIZES]
    assert lines[-1]["epoch"] == result.epochs == pytest.approx(368 / 110, abs=1e-6)
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [(p["step"], p["workers"], p["per_worker"]) for p in again["phases"]] == [(0, 2, 8), (7, 4, 8), (11, 4, 16)]


GROWTHS = {
    "phases": (
        "minibatch={workers: 3, per_worker: 8, growth: "
        "{kind: phases, phases: [{epoch: 1, workers: 5}, {epoch: 1.5, per_worker: 16}]}}",
    ),
    "doubling": ("minibatch={workers: 3, per_worker: 8, growth: {kind: doubling, every_epochs: 1, of: per_worker}}",),
    "instead_of_decay": (
        "minibatch={workers: 3, per_worker: 1, growth: {kind: instead_of_decay}}",
        "learning_rate.decay={kind: step, epochs: [0.5, 1.5], factor: 0.5}",
    ),
    "seesaw": ("minibatch={workers: 3, per_worker: 1, growth: {kind: seesaw}}", "learning_rate.scaling=sqrt"),
    "groups": (
        "minibatch={workers: 6, per_worker: 4, growth: "
        "{kind: phases, phases: [{epoch: 1, per_worker: 5}, {epoch: 1.5, workers: 8}]}}",
        "batch_norm.span=2",
    ),
    "noise": (
        "minibatch={workers: 3, per_worker: 8, growth: "
        "{kind: phases, phases: [{epoch: 1, workers: 5, per_worker: 9}]}}",
        "optimizer={name: sgd_lr_in_buffer, gradient_noise: 0.5}",
    ),
}
EXACT = ("numerics.exact=true", "execution.log_steps=1")


def finals(rank, dataset):
    """What every growth ends with, one run after the other."""
    outcomes = {}
    for name, overrides in GROWTHS.items():
        result = batchscale.train(RECIPE, [*overrides, *EXACT], data=dataset, quiet=True)
        outcomes[name] = (result.weights_sha256, result.test_loss, result.train_loss, result.steps, result.status)
    return outcomes


def test_exact_growing_runs_end_with_the_same_bits_for_every_number_of_processes(data):
    alone = finals(0, data)
    assert {status for *_, status in alone.values()} == {"done"}
    for processes in (2, 3):
        for results in in_processes(processes, finals, data):
            assert results == alone


def resumed(rank, dataset, overrides, out):
    return batchscale.train(RECIPE, overrides, data=dataset, out=out, quiet=True, resume="yes").weights_sha256


@pytest.mark.parametrize("mode", [(), EXACT], ids=["fast", "exact"])
def test_a_resume_before_at_and_after_a_change_ends_with_the_same_weights(data, tmp_path, monkeypatch, mode):
    overrides = [*GROWTHS["phases"], "optimizer.name=sgd_lr_in_buffer", "numerics.micro_batch=8", *mode]
    straight = batchscale.train(RECIPE, overrides, data=data, out=tmp_path / "straight", quiet=True)
    assert [p["step"] for p in straight.phases] == [0, 5, 7]
    for stop in (4, 5, 6, 7, 8):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped, match=f"after step {stop};"):
            batchscale.train(RECIPE, overrides, data=data, out=tmp_path / "run", quiet=True, resume="auto")
        monkeypatch.undo()
    if mode:
        assert set(in_processes(2, resumed, data, overrides, tmp_path / "run")) == {straight.weights_sha256}
    else:
        assert resumed(0, data, overrides, tmp_path / "run") == straight.weights_sha256


CIFAR_IMAGES = 50_000
BASE = {
    **RECIPE,
    "epochs": 200,
    "learning_rate": {
        "reference": 0.1,
        "reference_minibatch": 128,
        "decay": {"kind": "step", "epochs": [60, 120, 160], "factor": 0.2},
    },
}


def planned(*overrides, images=CIFAR_IMAGES):
    recipe = recipe_from(BASE, ["minibatch={workers: 4, per_worker: 32}", *overrides])
    plan = plan_of(recipe, images)
    return plan, schedule_of(recipe, plan)


def phases_and_lrs(plan, schedule):
    return [(p.minibatch.images, schedule(p.first_step)) for p in plan.phases]


def test_instead_of_decay_keeps_the_noise_scale_until_a_tenth_of_the_data():
    fixed, fixed_lr = planned()
    plan, lr = planned("minibatch.growth.kind=instead_of_decay")
    assert phases_and_lrs(plan, lr) == [(128, 0.1), (640, 0.1), (3200, 0.1)]  # 16,000 would be beyond N / 10
    assert lr(plan.total_steps - 1) == pytest.approx(0.02)

    def noise_scale(plan, lr, epoch):
        step = math.ceil(plan.steps(epoch))
        return lr(step) / (1 - 0.9) * (CIFAR_IMAGES / plan.minibatch_at(step).images - 1)

    for epoch in (0, 30, 59.9, 60.1, 100, 121, 159, 161, 199):
        ratio = noise_scale(plan, lr, epoch) / noise_scale(fixed, fixed_lr, epoch)
        kn = plan.minibatch_at(math.ceil(plan.steps(epoch))).images
        assert 1 - kn / CIFAR_IMAGES < ratio <= 1 + 1e-12
    assert plan.total_steps < fixed.total_steps / 2


def test_instead_of_decay_counts_what_the_lr_would_have_lost():
    assert len(planned("minibatch.growth.kind=instead_of_decay", images=6_399)[0].phases) == 1
    plan, lr = planned("minibatch.growth.kind=instead_of_decay", images=6_400)  # 640 is a tenth, to the image
    assert phases_and_lrs(plan, lr) == [(128, 0.1), (640, 0.1)]
    assert [lr(math.ceil(plan.steps(e))) for e in (119, 120, 160)] == pytest.approx([0.1, 0.02, 0.004])
    plan, _ = planned("minibatch.growth={kind: instead_of_decay, of: per_worker}")
    assert [(p.minibatch.workers, p.minibatch.per_worker) for p in plan.phases] == [(4, 32), (4, 160), (4, 800)]


def test_doubling_keeps_the_lr_per_image_of_the_run_that_does_not_grow():
    decay = "learning_rate.decay={kind: step, epochs: [20, 40, 60, 80], factor: 0.375}"
    fixed, fixed_lr = planned("epochs=100", decay)
    plan, lr = planned("epochs=100", decay, "minibatch.growth.kind=doubling")
    assert phases_and_lrs(plan, lr) == [(128 * 2**i, pytest.approx(0.1 * 0.75**i)) for i in range(5)]
    for epoch in (0, 19.9, 20.1, 39, 41, 61, 99):
        ours, theirs = math.ceil(plan.steps(epoch)), math.ceil(fixed.steps(epoch))
        assert lr(ours) / plan.minibatch_at(ours).images == pytest.approx(fixed_lr(theirs) / 128)


@pytest.mark.parametrize(
    ("scaling", "rule", "expected"),
    [
        ("linear", "follows", [0.1, 0.2, 0.4]),
        ("sqrt", "follows", [0.1, 0.1 * math.sqrt(2), 0.2]),
        ("none", "follows", [0.1, 0.1, 0.1]),
        ("linear", "stays", [0.1, 0.1, 0.1]),
    ],
)
def test_the_lr_follows_the_scaling_rule_or_stays_at_given_phases(scaling, rule, expected):
    plan, lr = planned(
        "minibatch.growth={kind: phases, phases: [{epoch: 5, workers: 8}, {epoch: 10.5, per_worker: 64}], "
        f"learning_rate: {rule}}}",
        "learning_rate.decay={kind: none}",
        f"learning_rate.scaling={scaling}",
    )
    assert phases_and_lrs(plan, lr) == [(kn, pytest.approx(x)) for kn, x in zip((128, 256, 512), expected, strict=True)]


@pytest.mark.parametrize("kind", ["cosine", "polynomial"])
def test_warmup_and_decay_go_by_the_epoch_also_across_changes(kind):
    shape = ("learning_rate.decay.epochs=[]", f"learning_rate.decay.kind={kind}")
    shape += ("learning_rate.warmup={kind: gradual, epochs: 10}", "learning_rate.reference_minibatch=32")
    plan, lr = planned(*shape, "minibatch.growth={kind: doubling, every_epochs: 6, learning_rate: stays}", "epochs=30")
    fixed, fixed_lr = planned(*shape, "epochs=30")
    assert plan.phases[1].first_epoch < 10 < plan.phases[2].first_epoch
    for step in range(0, plan.total_steps, 7):
        same_place = float(fixed.steps(plan.epoch_at(step)))
        assert lr(step) == pytest.approx(fixed_lr.first(same_place), abs=2e-3)


DECAY_BY_0_4 = "learning_rate.decay={kind: step, epochs: [60], factor: 0.4}"
PHASES = "minibatch.growth={kind: phases, phases: %s}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([PHASES % "[{epoch: 5, workers: 8}, {epoch: 5, workers: 16}]"], "epoch 5 after 5: epochs must rise"),
        (
            [PHASES % "[{epoch: 5, workers: 2}]"],
            "2 x 32 images at epoch 5 after 4 x 32: workers and per_worker",
        ),
        ([PHASES % "[{epoch: 5, workers: 8, per_worker: 16}]"], "must not fall, and one must grow"),
        ([PHASES % "[{epoch: 5}]"], "must not fall, and one must grow"),
        ([PHASES % "[]"], "kind: phases needs phases, for example"),
        ([PHASES % "[{epoch: 200, workers: 8}]"], "at epoch 200 lies beyond the run's end, epochs=200"),
        (
            [PHASES % "[{epoch: 5, workers: 8}, {epoch: 0, workers: 16}]"],
            "entry minibatch.growth.phases[1].epoch=0: input should be greater than 0; set it with "
            "minibatch.growth.phases=VALUE",
        ),
        ([PHASES % "[{workers: 8}]"], "'minibatch.growth.phases[0].epoch': missing"),
        ([PHASES % "[{epoch: 5, epok: 8}]"], "'minibatch.growth.phases[0].epok': unknown"),
        ([PHASES % "[5]"], "entry minibatch.growth.phases[0]=5: input should be"),
        ([PHASES % "[{epoch: 5, workers: 4000}]"], "128000 images from epoch 5 on: must not exceed the 50000"),
        ([PHASES % "[{epoch: 5, workers: 8}, {epoch: 5.001, workers: 16}]"], "at epoch 5: must leave a step before it"),
        ([PHASES % "[{epoch: 199.9999, workers: 8}]"], "at epoch 199.9999: must leave a step before it and one after"),
        ([PHASES % "[{epoch: 2.5, workers: 8}]", "data.partial=drop"], "at epoch 2.5: with data.partial=drop it must"),
        (["minibatch.growth={kind: doubling}"], "images from epoch 180 on: must not exceed the 50000"),
        (["minibatch.growth={kind: doubling, every_epochs: 1.0e-6}"], "must not exceed the 50000"),
        (["minibatch.growth={kind: doubling, every_epochs: 300}"], "at epoch 300 lies beyond the run's end"),
        (["minibatch.growth.every_epochs=5"], "every_epochs=5 has no place in kind: none, which takes no options"),
        (
            ["minibatch.growth={kind: instead_of_decay, learning_rate: stays}"],
            "learning_rate=stays has no place in kind: instead_of_decay, which takes of",
        ),
        (
            ["minibatch.growth.kind=instead_of_decay", "learning_rate.decay={kind: cosine}"],
            "instead_of_decay and learning_rate.decay.kind=cosine: growth takes the place of steps",
        ),
        (
            ["minibatch.growth.kind=instead_of_decay", "learning_rate.decay.factor=0.3"],
            "of=workers: 4 x 3.33333 is not whole; use another minibatch.workers",
        ),
        (
            ["minibatch.growth.kind=instead_of_decay", "learning_rate.decay.factor=1.0"],
            "with learning_rate.decay.factor=1: the minibatch would not grow",
        ),
        (["minibatch.growth.kind=doubling", "numerics={exact: true, compile: true}"], "use numerics.compile=false"),
        (
            [PHASES % "[{epoch: 5, workers: 5}]", "batch_norm.span=2"],
            "batch_norm.span=2 must divide minibatch.workers=5 from epoch 5 on",
        ),
        (
            ["minibatch.growth.kind=instead_of_decay", DECAY_BY_0_4, "batch_norm.span=4"],
            "batch_norm.span=4 must divide minibatch.workers=10, as every number of workers that it grows to",
        ),
        (["minibatch.growth.kind=halving"], "growth.kind='halving': input should be 'none', 'phases'"),
    ],
)
def test_a_growth_that_cannot_be_is_one_clear_line(overrides, message):
    with pytest.raises(RecipeError) as error:
        planned(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_more_processes_than_first_workers_are_refused_before_anything_starts(capsys):
    from batchscale.cli import main

    growing = "minibatch={workers: 1, per_worker: 32, growth: {kind: phases, phases: [{epoch: 2, workers: 4}]}}"
    assert main(["train", "digits-cnn", growing, "--processes", "2"]) == 2
    assert "--processes=2: must not exceed minibatch.workers=1" in capsys.readouterr().err
    assert main(["train", "digits-cnn", growing.replace("workers: 4", "workers: 45")]) == 2
    assert "1440 images from epoch 2 on: must not exceed the 1437 training images" in capsys.readouterr().err


@pytest.mark.parametrize("growth", sorted(GROWTHS))
def test_the_resolved_recipe_loads_again(tmp_path, growth):
    recipe = recipe_from(RECIPE, GROWTHS[growth])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_the_derived_numbers_name_every_phase():
    recipe = recipe_from(BASE, ["minibatch={workers: 4, per_worker: 32, growth: {kind: instead_of_decay}}"])
    lines = " ".join(as_text(derived_numbers(recipe, CIFAR_IMAGES, 3)).split())
    assert "growth / 0.2 at a decay while kn <= N / 10 = 5000; lr x 1 = 2 changes" in lines
    assert (
        "phase 2 epoch 60.0013: kn = 20 x 32, 78.125 steps an epoch = 640 images, 4688 steps from step 23438" in lines
    )
    unchanged = " ".join(as_text(derived_numbers(recipe, 6_399, 3)).split())
    assert "lr x 1 = never within this run" in unchanged
    assert "workers per process 20 workers on 3 processes = 7, 7, 6" in lines
    assert "decay x 0.2 at epochs [160.0] = lr 0.02 from step" in lines
