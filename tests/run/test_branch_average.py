"""A branch may begin to average its weights, or end it, and may let its lr ramp; a trunk's average goes on."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.runs import RECIPE, train
from support.runs import data as data

from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.errors import RecipeError
from batchscale.recipe import recipe_from

ALWAYS = ("numerics.micro_batch=8", "numerics.exact=true")
KEPT = "execution.keep_checkpoints={steps: [3]}"
DECAY = 0.75


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A run of 11 steps without averages, with a checkpoint of step 3."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, train(data, folder, *ALWAYS, KEPT)


def test_a_branch_averages_from_its_first_step_on_and_trains_as_before(data, plain, tmp_path):
    """a = sum d^(T - i) w_i / sum d^(T - i) over the branch's own steps alone."""
    folder, straight = plain
    averaged = train(
        data, tmp_path / "a", *ALWAYS, f"model.ema_decay={DECAY}", "epochs=1.5", "learning_rate.decay.end=3",
        branch=folder, at=3,
    )  # fmt: skip
    assert averaged.steps == 6
    steps = [checkpoint_weights(data, folder, tmp_path, step) for step in (4, 5, 6)]
    found = load_file(tmp_path / "a" / "weights_ema.safetensors")
    for name, value in found.items():
        if value.is_floating_point():
            shares = torch.tensor([DECAY**2, DECAY, 1.0], dtype=torch.float64)
            rows = torch.stack([weights[name].double() for weights in steps])
            expected = torch.tensordot(shares / shares.sum(), rows, dims=1)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
    whole = train(data, None, *ALWAYS, f"model.ema_decay={DECAY}", branch=folder, at=3)
    assert whole.weights_sha256 == straight.weights_sha256


def checkpoint_weights(data, folder, tmp_path, step):
    """The weights of the plain branch after a step."""
    out = tmp_path / f"w{step}"
    epochs = (step - 0.5) * 32 / 110
    train(data, out, *ALWAYS, f"epochs={epochs}", "learning_rate.decay.end=3", branch=folder, at=3)
    return load_file(out / "weights.safetensors")


def test_a_trunks_average_goes_on_and_may_be_left(data, plain, tmp_path):
    averaging = (*ALWAYS, f"model.ema_decay={DECAY}")
    straight = train(data, tmp_path / "trunk", *averaging, KEPT)
    on = train(data, tmp_path / "on", *averaging, branch=tmp_path / "trunk", at=3)
    assert on.test_loss == straight.test_loss
    without = train(data, None, *ALWAYS, branch=tmp_path / "trunk", at=3)
    assert without.weights_sha256 == plain[1].weights_sha256
    assert without.test_loss == plain[1].test_loss != straight.test_loss


def test_evaluations_at_named_steps_hold_the_loss_of_every_chunk(data, tmp_path):
    train(data, tmp_path / "run", *ALWAYS, "execution.evaluation_at=[2, 5]", "execution.evaluation_losses=true")
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 5, 11]
    for line in lines:
        assert [size for size, _ in line["chunks"]] == [16, 16, 8]  # numerics.evaluation_chunk, 40 test images
        mean = sum(size * loss for size, loss in line["chunks"]) / 40
        assert mean == pytest.approx(line["loss"], rel=1e-12)


def test_the_lr_of_a_branch_ramps_over_examples_from_the_trunks_to_its_own():
    trunk = recipe_from(RECIPE, ["learning_rate.decay.kind=none"])
    point = Trunk("t", 5, "", trunk)
    plan = run_plan(trunk, 350)
    reference = run_schedule(trunk, plan)(5)
    branch = recipe_from(RECIPE, ["learning_rate.decay.kind=none", "minibatch.workers=8", "branch.warmup=128"])
    plan = run_plan(branch, 350, point)
    schedule = run_schedule(branch, plan, point)
    assert [schedule(step) / reference for step in range(5, 9)] == pytest.approx([1.0, 1.5, 2.0, 2.0], rel=1e-12)
    with pytest.raises(RecipeError, match=r"branch\.warmup=128: is of the lr of a branch; give its trunk"):
        run_plan(branch, 350)
