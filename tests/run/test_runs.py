"""Runs in this process: equal to plain torch, resumed as if nothing had happened, ended well when they must."""

import functools
import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.dues import stop_after
from support.runs import RECIPE, Dropping, train
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build.inputs import load_data
from batchscale.errors import CheckpointError, DataError, ExactnessError, FolderError, RecipeError
from batchscale.models import MODELS
from batchscale.order import StreamOrder
from batchscale.randomness import key
from batchscale.recipe import recipe_from
from batchscale.recipe.load import identity
from batchscale.records.folder import attempted
from batchscale.run.compare import compare
from batchscale.run.run import Stopped
from batchscale.training import checkpoint as checkpoints
from batchscale.training.due import DUES


def test_a_run_learns_and_leaves_its_record(data, tmp_path):
    out = tmp_path / "run"
    result = train(data, out)
    assert result.status == "done"
    assert result.test_error_percent < 30
    assert (result.steps, result.processes, result.workers, result.per_worker) == (11, 1, 4, 8)
    assert {f.name for f in out.iterdir()} >= {
        "recipe.yaml", "environment.json", "metrics.jsonl", "evaluations.jsonl", "checkpoints", "weights.safetensors",
        "result.json",
    }  # fmt: skip
    assert json.loads((out / "result.json").read_text())["weights_sha256"] == result.weights_sha256
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 12))
    assert set(lines[0]["phase_seconds"]) == {"data", "forward", "backward", "aggregation", "update"}
    evaluations = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [e["step"] for e in evaluations] == [4, 7, 11]
    assert evaluations[-1]["error_percent"] == result.test_error_percent == 100 * evaluations[-1]["wrong"] / 40
    assert len(list((out / "checkpoints").iterdir())) == 2
    environment = json.loads((out / "environment.json").read_text())
    assert environment["decided"]["micro_batch"] in (8, 16, 32)
    assert torch.__version__.startswith(environment["versions"]["torch"])


def test_the_weights_load_into_the_plain_model_and_give_the_recorded_error(data, tmp_path):
    result = train(data, tmp_path / "run")
    model = MODELS["cnn"]((1, 8, 8), 4)
    model.load_state_dict(load_file(tmp_path / "run" / "weights.safetensors"))
    x, mean, std = (
        data.test_images.float(),
        data.train_images.float().mean(),
        data.train_images.float().std(correction=0),
    )
    with torch.no_grad():
        logits = model.eval()((x - mean) / std)
    wrong = int((logits.argmax(1) != data.test_labels).sum())
    assert 100 * wrong / 40 == result.test_error_percent
    assert float(F.cross_entropy(logits, data.test_labels)) == pytest.approx(result.test_loss, rel=1e-4)


def plain_torch(data, workers=4, n=8, epochs=3):
    """The same run in a loop of plain torch: one worker after the other, running averages by their definition.

    They are debiased: from 0 in place of torch's 0 and 1, and divided by the sum of their weights at the end.
    """
    torch.manual_seed(key(0, 200) >> 1)
    model = MODELS["cnn"]((1, 8, 8), 4).double()
    total = math.ceil(epochs * 110 / (workers * n))
    sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    from batchscale.data.augmentation import Augmentation
    from batchscale.data.feed import Feed, Normalizer
    from batchscale.minibatch import Minibatch, StepPlan

    pixels = data.train_images.double()
    normalizer = Normalizer(
        [float(pixels.mean())],
        [float(pixels.std(correction=0))],
        torch.float64,
        torch.contiguous_format,
        torch.device("cpu"),
    )
    minibatch = Minibatch(workers, n)
    feed = Feed(
        data.splits().train, plan=StepPlan(minibatch, 110, epochs),
        workers=range, micro_batch=n, order=StreamOrder(0, 110), augmentation=Augmentation(), normalizer=normalizer,
    )  # fmt: skip
    averages = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in averages:
        norm.running_var.zero_()
    for step in range(total):
        sgd.zero_grad()
        before = {name: b.clone() for name, b in model.named_buffers()}
        after = {name: torch.zeros_like(b) for name, b in before.items()}
        for batch in feed.passes(step):
            model.load_state_dict(before, strict=False)
            (F.cross_entropy(model(batch.inputs), batch.targets, reduction="sum") / minibatch.images).backward()
            for name, b in model.named_buffers():
                after[name] += b // workers if b.dtype == torch.int64 else b / workers
        model.load_state_dict(
            {name: before[name] + 1 if b.dtype == torch.int64 else b for name, b in after.items()}, strict=False
        )
        for p in model.parameters():
            if id(p) not in norms:
                p.grad += 1e-4 * p.detach()
        warm = 0.05 if step < 3 else 0.05 * 0.5 * (1 + math.cos(math.pi * (step - 3) / (total - 3)))
        sgd.param_groups[0]["lr"] = warm
        sgd.step()
    feed.close()
    for norm in averages:
        norm.running_mean.div_(1 - 0.9**total)
        norm.running_var.div_(1 - 0.9**total)
    return model.state_dict()


def test_a_run_equals_a_loop_of_plain_torch(data, tmp_path):
    train(data, tmp_path / "run", "precision=fp64", "numerics.micro_batch=16")
    found, expected = load_file(tmp_path / "run" / "weights.safetensors"), plain_torch(data)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd_lr_in_buffer"])
def test_a_run_stopped_at_any_step_and_resumed_ends_with_the_same_weights(
    data, tmp_path, monkeypatch, exact, optimizer
):
    overrides = [f"numerics.exact={str(exact).lower()}", f"optimizer.name={optimizer}", "numerics.micro_batch=8"]
    straight = train(data, tmp_path / "straight", *overrides)
    out = tmp_path / "broken"
    for stop in (1, 4, 5, 9):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped, match=f"after step {stop}; go on with the same call"):
            train(data, out, *overrides, resume="auto")
        monkeypatch.undo()
    finished = train(data, out, *overrides, resume="yes")
    assert finished.weights_sha256 == straight.weights_sha256
    assert finished.test_loss == straight.test_loss
    assert finished.train_loss == straight.train_loss
    assert [e["step"] for e in evaluations(out)] == [4, 7, 11]
    assert compare(tmp_path / "straight", out)["equal"] is True


def evaluations(out):
    return [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]


def test_evaluations_in_steps_are_those_of_a_straight_run_after_a_resume(data, tmp_path, monkeypatch):
    overrides = ("execution.evaluation_steps=3", "numerics.micro_batch=8")
    straight = train(data, tmp_path / "straight", *overrides)
    assert [e["step"] for e in evaluations(tmp_path / "straight")] == [3, 6, 9, 11]
    for stop in (2, 6):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped):
            train(data, tmp_path / "broken", *overrides, resume="auto")
        monkeypatch.undo()
    assert train(data, tmp_path / "broken", *overrides, resume="yes").weights_sha256 == straight.weights_sha256
    assert evaluations(tmp_path / "broken") == evaluations(tmp_path / "straight")


def test_a_run_ends_at_the_first_evaluation_below_a_goal(data, tmp_path, monkeypatch):
    common = ("execution.evaluation_steps=1", "numerics.micro_batch=8")
    whole = train(data, tmp_path / "whole", *common)
    assert "stopped_below" not in whole.model_dump()
    lines = evaluations(tmp_path / "whole")
    bound = lines[4]["loss"] * 1.0001
    first = next(line for line in lines if line["loss"] < bound)
    goal = f"execution.stop_below.loss={bound!r}"
    found = train(data, tmp_path / "stopped", *common, goal)
    assert (found.status, found.steps, found.test_loss) == ("done", first["step"], first["loss"])
    assert found.model_dump()["stopped_below"] == {"loss": bound}
    assert evaluations(tmp_path / "stopped") == lines[: first["step"]]  # the schedule is that of the whole run
    monkeypatch.setitem(DUES, "stop", stop_after(first["step"]))
    with pytest.raises(Stopped):  # killed between the evaluation and the result
        train(data, tmp_path / "killed", *common, goal)
    monkeypatch.undo()
    assert train(data, tmp_path / "killed", *common, goal, resume="yes").weights_sha256 == found.weights_sha256


def test_a_line_that_a_stop_cut_in_two_is_whole_after_the_resume(data, tmp_path, monkeypatch):
    overrides = ("execution.log_steps=4", "numerics.micro_batch=8")
    train(data, tmp_path / "a", *overrides)
    monkeypatch.setitem(DUES, "stop", stop_after(3))
    with pytest.raises(Stopped):
        train(data, tmp_path / "b", *overrides)
    monkeypatch.undo()
    train(data, tmp_path / "b", *overrides, resume="yes")
    assert compare(tmp_path / "a", tmp_path / "b")["equal"] is True


class Explodes(nn.Module):
    """A finite loss with a gradient that is not."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        logits = self.linear(x.flatten(1))
        if logits.requires_grad:
            logits.register_hook(lambda g: g * float("inf"))
        return logits


def test_a_gradient_that_is_not_finite_is_never_applied(data):
    for exact in ("true", "false"):
        model = Explodes()
        before = model.linear.weight.detach().clone()
        result = train(data, None, f"numerics.exact={exact}", model=model)
        assert (result.status, result.diverged_at_step) == ("diverged", 0)
        assert torch.equal(model.linear.weight, before)


def test_a_mistake_leaves_no_begun_run_behind(data, tmp_path):
    with pytest.raises(RecipeError):
        train(data, tmp_path / "run", "minibatch.workers=14")
    assert not (tmp_path / "run").exists()
    assert train(data, tmp_path / "run").status == "done"


def test_a_finished_run_is_not_trained_again(data, tmp_path):
    first = train(data, tmp_path / "run")
    assert train(data, tmp_path / "run", resume="auto") == first


@pytest.mark.parametrize("exact", [False, True])
def test_training_error_counts_the_images_told_wrong(data, tmp_path, exact):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))  # says 1 of every image, in 4 or 11 passes
    whole = (
        "minibatch.workers=11",
        "minibatch.per_worker=10",
        f"numerics.micro_batch={10 if exact else 30}",
        "epochs=2",
    )
    train(data, tmp_path / "run", *whole, f"numerics.exact={exact}".lower(), model=model)
    first, second = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    labels = data.train_labels
    assert first["train_error_percent"] == round(100 * float((labels != 1).double().mean()), 4)
    assert 0 <= second["train_error_percent"] <= 100


def test_a_run_shorter_than_an_epoch_has_a_training_loss(data):
    assert train(data, None, "epochs=0.5").train_loss is not None


def test_augmentation_that_fits_no_data_is_refused(data):
    with pytest.raises(DataError, match=r"padding=9: must not exceed the image"):
        train(data, None, "data.augment.crop=padded", "data.augment.padding=9")
    x, y = torch.randn(40, 6), torch.zeros(40, dtype=torch.int64)
    floats = batchscale.Dataset("own", x, y, x, y, 2)
    with pytest.raises(DataError, match=r"data.augment: acts on uint8 images"):
        train(floats, None, "data.augment.flip=true", model=nn.Linear(6, 2))


def test_the_micro_batch_may_be_changed_at_a_fast_resume(data, tmp_path, monkeypatch):
    monkeypatch.setitem(DUES, "stop", stop_after(3))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", "numerics.micro_batch=8")
    monkeypatch.undo()
    train(data, tmp_path / "run", "numerics.micro_batch=16", resume="yes")
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["decided"]["micro_batch"] == 16


def test_a_batch_norm_that_runs_twice_is_refused(data):
    norm = nn.BatchNorm1d(64)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = norm, nn.Linear(64, 4)

        def forward(self, x):
            return self.last(self.norm(F.relu(self.norm(x.flatten(1)))))

    with pytest.raises(RecipeError, match="runs twice in one forward pass"):
        train(data, None, model=Twice())


def dropped(rank, data, overrides):
    result = train(data, None, *overrides, model=Dropping())
    return result.weights_sha256, result.train_loss


def test_random_modules_draw_by_worker_never_by_process(data):
    for overrides in (("numerics.exact=true",), ("precision=fp64",)):
        alone = dropped(0, data, overrides)
        for found in in_processes(3, dropped, data, overrides):
            assert found[1] == pytest.approx(alone[1], rel=1e-9)
            if overrides[0] == "numerics.exact=true":
                assert found == alone


class LayerDrop(nn.Module):
    """A batch norm that every worker passes over by chance, and one that never trains."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dropped, self.frozen, self.linear = nn.BatchNorm2d(1), nn.BatchNorm2d(1), nn.Linear(64, 4)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x):
        if not self.training or torch.rand(()) < 0.5:
            x = self.dropped(x)
        return self.linear(self.frozen(x).flatten(1))


def dropping(rank, data, overrides):
    model = LayerDrop()
    result = train(data, None, *overrides, model=model)
    return result.weights_sha256, model.dropped.running_var.item(), model.frozen.running_var.item()


def test_layers_that_workers_pass_over_are_averaged_over_those_that_do_not(data):
    overrides = ["numerics.exact=true", "minibatch.workers=6", "minibatch.per_worker=4", "numerics.micro_batch=4"]
    alone = dropping(0, data, overrides)
    assert in_processes(3, dropping, data, overrides) == [alone] * 3
    assert alone[1] == pytest.approx(1, abs=0.1)  # images are normalised: by half of the statistics it would be 0.5
    assert alone[2] == 1


def test_a_resume_goes_on_with_the_very_next_image(data, tmp_path, monkeypatch):
    train(data, tmp_path / "a")
    monkeypatch.setitem(DUES, "stop", stop_after(2))
    with pytest.raises(Stopped):
        train(data, tmp_path / "b", "numerics.micro_batch=8")
    monkeypatch.undo()
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    train(data, tmp_path / "b", "numerics.micro_batch=8", resume="yes")
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 12))


def test_a_line_says_of_how_many_steps_its_phases_are_after_a_resume_too(data, tmp_path, monkeypatch):
    monkeypatch.setitem(DUES, "stop", stop_after(6))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", "execution.log_steps=4")
    monkeypatch.undo()
    train(data, tmp_path / "run", "execution.log_steps=4", resume="yes")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [(line["step"], line["interval_steps"]) for line in lines] == [(4, 4), (8, 2), (11, 3)]


def test_diverged_at_the_step_it_happened(data, tmp_path):
    out = tmp_path / "run"
    overrides = ("learning_rate.reference=1e30", "learning_rate.warmup.kind=none", "numerics.exact=true")
    result = train(data, out, *overrides)
    assert result.status == "diverged"
    assert result.diverged_at_step == result.steps
    assert 0 < result.steps < 11
    assert train(data, tmp_path / "again", *overrides).weights_sha256 == result.weights_sha256


def test_random_modules_are_the_same_in_any_split(data, tmp_path):
    shas = {train(data, None, "seed=3", model=Dropping()).weights_sha256 for _ in range(2)}
    assert len(shas) == 1
    assert train(data, None, "seed=4", model=Dropping()).weights_sha256 not in shas
    with pytest.raises(RecipeError, match="the model draws random numbers, so it runs one worker a pass"):
        train(data, None, "numerics.micro_batch=16", model=Dropping())


def test_ones_own_module_is_trained_in_place_and_stays_plain(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    before = model[1].weight.clone()
    result = train(data, None, model=model)
    assert type(model[2]) is nn.BatchNorm1d
    assert model[2].num_batches_tracked == 11
    assert not torch.equal(before, model[1].weight)
    assert checkpoints.tensors_sha256(model.state_dict()) == result.weights_sha256
    assert not model[1].weight._post_accumulate_grad_hooks


def test_float_data_of_any_shape_is_used_as_it_is():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    y = (x[:, 0] > 0).long()
    data = batchscale.Dataset("own", x[:150], y[:150], x[150:], y[150:], 2)
    result = train(data, None, "epochs=20", model=nn.Linear(6, 2))
    assert result.test_error_percent < 15
    with pytest.raises(RecipeError, match=r"model.name=cnn: needs images \(C, H, W\)"):
        train(data)


def test_the_held_out_part_is_kept_from_training_and_from_the_test_set(data, tmp_path):
    result = train(data, tmp_path / "run", "data.holdout=30")
    assert result.evaluated_on == "holdout"
    assert evaluations(tmp_path / "run")[-1]["images"] == 30
    assert result.steps == math.ceil(3 * 80 / 32)
    with pytest.raises(DataError, match=r"data.holdout=110: must be below the 110 training images"):
        train(data, None, "data.holdout=110")


def test_training_images_are_nested_the_same_for_every_seed_and_never_held_out():
    images = torch.arange(110, dtype=torch.uint8).reshape(110, 1, 1, 1)  # an image is its number
    numbered = batchscale.Dataset("own", images, torch.arange(110) % 4, images[:7], torch.zeros(7).long(), 4)

    def parts(*overrides):
        splits = load_data(recipe_from(RECIPE, overrides), None, numbered)
        return splits.train.inputs.flatten().tolist(), splits.test.inputs.flatten().tolist()

    small, test = parts("data.train_images=20")
    large, _ = parts("data.train_images=60", "seed=5")
    assert (len(set(small)), len(set(large)), test) == (20, 60, list(range(7)))
    assert set(small) < set(large)
    assert 8 <= len(set(small) & set(range(60))) < 20  # from all over the set
    kept, held = parts("data.train_images=60", "data.holdout=50")
    assert kept == large
    assert set(held) == set(range(110)) - set(kept)
    assert held == parts("data.holdout=50")[1]
    assert parts("data.train_images=110") == parts()
    with pytest.raises(DataError, match=r"train_images=111: must not exceed the 110 training images; lower it"):
        parts("data.train_images=111")
    with pytest.raises(
        DataError, match=r"train_images=61: must not exceed the 60 training images that data.holdout=50"
    ):
        parts("data.train_images=61", "data.holdout=50")


def test_a_share_of_the_training_images_is_as_many_of_them_by_number():
    images = torch.arange(110, dtype=torch.uint8).reshape(110, 1, 1, 1)
    numbered = batchscale.Dataset("own", images, torch.arange(110) % 4, images[:7], torch.zeros(7).long(), 4)

    def trained(*overrides):
        splits = load_data(recipe_from(RECIPE, overrides), None, numbered)
        assert splits.contents["training images"] == len(splits.train)
        return splits.train.inputs.flatten().tolist()

    for share, count in ((0.25, 28), (0.5, 55), (0.001, 1), (0.004, 1)):  # 27.5: to the nearest, halves up
        assert trained(f"data.train_fraction={share}", "seed=3") == trained(f"data.train_images={count}")
    assert trained("data.train_fraction=1.0") == trained()
    assert trained("data.train_fraction=0.5", "data.holdout=50") == trained("data.train_images=30")
    assert "data.train_fraction" not in identity(recipe_from(RECIPE, ["data.train_fraction=1"]))
    for share in ("0", "1.5", "-0.5"):
        with pytest.raises(RecipeError, match=r"data\.train_fraction"):
            recipe_from(RECIPE, [f"data.train_fraction={share}"])
    with pytest.raises(RecipeError, match=r"data.train_images=5 and data.train_fraction=0.5 both say.*leave one out"):
        recipe_from(RECIPE, ["data.train_images=5", "data.train_fraction=0.5"])


def test_a_run_on_some_of_the_training_images(data, tmp_path):
    result = train(data, tmp_path / "run", "data.train_images=80")
    assert result.steps == math.ceil(3 * 80 / 32)
    assert evaluations(tmp_path / "run")[-1]["images"] == 40
    with pytest.raises(CheckpointError, match=r"data.train_images \(80 there, 60 asked for\)"):
        train(data, tmp_path / "run", "data.train_images=60", resume="yes")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.train_images=0"], "data.train_images"),
        (["data.name=imagenet", "data.train_images=9"], "is for images in memory.*with data.subset=FILE"),
    ],
)
def test_training_images_that_cannot_be_chosen(overrides, said):
    with pytest.raises(RecipeError, match=said):
        recipe_from(RECIPE, overrides)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("images", [8, 24])  # of 4 workers: passes of one, or of three and one
def test_compiled_is_the_same_run_to_rounding(data, tmp_path, monkeypatch, images, backend):
    """Traced and differentiated as ever; only inductor, torch's default, writes C++ and compiles half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    size = f"numerics.micro_batch={images}"
    eager = train(data, None, "epochs=1", size)
    compiled = train(data, tmp_path / "run", "epochs=1", size, "numerics.compile=true")
    assert compiled.train_loss == pytest.approx(eager.train_loss, rel=1e-3)
    assert compiled.test_loss == pytest.approx(eager.test_loss, rel=1e-3)
    decided = attempted(tmp_path / "run", "decided")[0]
    assert decided["micro_batch"] == images
    assert decided["compile_seconds"] > 0


@pytest.fixture(scope="module")
def stopped_run(data, tmp_path_factory):
    """A run with two whole checkpoints that is not finished."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DUES, "stop", stop_after(9))
        with pytest.raises(Stopped):
            train(data, out, "numerics.exact=true")
    assert [f.name for f in checkpoints.folders(out)] == ["step-0000000007", "step-0000000009"]
    return out


@pytest.fixture
def run_copy(stopped_run, tmp_path):
    shutil.copytree(stopped_run, tmp_path / "run")
    return tmp_path / "run"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def alter(path):
    manifest = json.loads(path.read_text())
    manifest["step"] += 1
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.safetensors", truncate),
        ("state.safetensors", flip),
        ("manifest.json", alter),
        ("manifest.json", truncate),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over_for_the_one_before(data, run_copy, capsys, file, damage):
    damage(run_copy / "checkpoints" / "step-0000000009" / file)
    straight = train(data, None, "numerics.exact=true")
    resumed = train(data, run_copy, "numerics.exact=true", resume="yes")
    assert resumed.weights_sha256 == straight.weights_sha256
    assert "step-0000000009" in capsys.readouterr().err


def test_when_all_are_damaged_nothing_is_lost(data, run_copy):
    for folder in checkpoints.folders(run_copy):
        truncate(folder / "state.safetensors")
    before = {p: p.read_bytes() for p in run_copy.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(CheckpointError, match=r"step-0000000009.*no older checkpoint is whole"):
        train(data, run_copy, "numerics.exact=true", resume="yes")
    assert before == {p: p.read_bytes() for p in run_copy.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_resume_with_another_recipe_names_the_differing_entries(data, run_copy):
    with pytest.raises(CheckpointError, match=r"epochs \(3.0 there, 4.0 asked for\), seed \(0 there, 1 asked for\)"):
        train(data, run_copy, "numerics.exact=true", "epochs=4", "seed=1", resume="yes")


def test_an_exact_run_goes_on_only_as_it_began(data, run_copy):
    with pytest.raises(ExactnessError, match=r"memory_format \(channels_last / contiguous\)"):
        train(data, run_copy, "numerics.exact=true", "numerics.memory_format=contiguous", resume="yes")
    with pytest.raises(ExactnessError, match=r"exact \(True / False\)"):
        train(data, run_copy, resume="yes")


def test_a_folder_in_use_is_refused_and_left_alone(data, tmp_path, run_copy):
    with pytest.raises(FolderError, match="already holds a run; go on with it by --resume"):
        train(data, run_copy)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(FolderError, match="holds other files"):
        train(data, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "mine"
    with pytest.raises(FolderError, match="holds no run to resume"):
        train(data, tmp_path / "nothing", resume="yes")
    with pytest.raises(FolderError, match="is a file"):
        train(data, tmp_path / "other" / "thesis.tex")


def test_compare_names_the_first_difference(data, tmp_path):
    train(data, tmp_path / "a", "numerics.exact=true")
    train(data, tmp_path / "b", "numerics.exact=true", "learning_rate.warmup.steps=4")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found["equal"] is False
    assert found["compared_by"] == "weights_sha256"
    assert found["first_differing_step"] == 5  # until then both lrs are the target: warmup is from 0.05 to 0.05
    assert found["final_weights"] not in (None, "equal")
    for folder in ("a", "b"):  # as of a GPU
        metrics = tmp_path / folder / "metrics.jsonl"
        metrics.write_text(metrics.read_text().replace("weights_sha256", "weights_checksum"))
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found["compared_by"], found["first_differing_step"]) == ("weights_checksum", 5)


def test_exact_mode_refuses_double_precision(data):
    with pytest.raises(ExactnessError, match="precision=fp64"):
        train(data, None, "numerics.exact=true", "precision=fp64")


def test_a_minibatch_larger_than_the_data(data):
    with pytest.raises(RecipeError, match="must not exceed the 110 training images"):
        train(data, None, "minibatch.workers=14")


def test_options_that_fit_no_model(data):
    with pytest.raises(RecipeError, match="model cnn has no block whose last norm is known"):
        train(data, None, "model.zero_init_last_gamma=true")
    with pytest.raises(RecipeError, match="no parameter to train"):
        train(data, None, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 4).requires_grad_(False)))


def test_the_last_gammas_begin_at_zero(data):
    from batchscale.build.network import build_model
    from batchscale.recipe import recipe_from

    model = build_model(recipe_from(RECIPE, ["model.name=resnet8", "model.zero_init_last_gamma=true"]), data)
    assert [float(m.bn2.weight.detach().abs().sum()) for m in model.modules() if hasattr(m, "bn2")] == [0.0, 0.0, 0.0]
