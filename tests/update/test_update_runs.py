"""Updates in whole runs: the same bits for every W in exact mode, and through every stop and resume."""

import pytest
import torch
from support.dues import stop_after
from support.runs import RECIPE
from support.update_runs import data as data
from support.update_runs import train
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build.wrapping import named_optimizer
from batchscale.errors import RecipeError
from batchscale.minibatch import Minibatch, StepPlan
from batchscale.recipe import dump_recipe, recipe_from
from batchscale.run.run import Stopped
from batchscale.training.due import DUES
from batchscale.update.optimizers import OPTIMIZERS
from batchscale.update.rmsprop_warmup import RMSpropWarmup
from batchscale.worker.noise import GradientNoise

UPDATES = {
    **{name: (f"optimizer={{name: {name}}}",) for name in OPTIMIZERS},
    "muon": ("optimizer={name: muon}", "model.name=keskar_f1"),
    "rmsprop_warmup": ("optimizer={name: rmsprop_warmup, center_epochs: 1, period_epochs: 2}",),
    "momentum_changes": ("optimizer.momentum_changes=[{epoch: 0.6, momentum: 0.5}]",),
    "clip_norm": ("optimizer.clip_norm=0.5",),
    "gradient_noise": ("optimizer.gradient_noise=0.7",),
    "ema": ("model.ema_decay=0.8", "optimizer.momentum=0.8"),
    "bf16": ("precision=bf16",),
    "fp16": ("precision=fp16",),
}


EXACT = ["numerics.exact=true", "epochs=1"]


def finals(rank, data, updates, overrides):
    """What every update ends with, one run after the other."""
    outcomes = {}
    for name, update in updates.items():
        result = train(data, None, *update, *overrides)
        averaged = getattr(result, "weights_ema_sha256", None)
        outcomes[name] = (result.weights_sha256, result.test_loss, averaged, result.status)
    return outcomes


def test_exact_runs_end_with_the_same_bits_for_every_number_of_processes(data):
    alone = finals(0, data, UPDATES, EXACT)
    assert len({sha for sha, *_ in alone.values()}) == len(UPDATES)
    assert {status for *_, status in alone.values()} == {"done"}
    for processes in (2, 3):
        for results in in_processes(processes, finals, data, UPDATES, EXACT):
            assert results == alone


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_a_run_stopped_and_resumed_ends_with_the_same_weights(data, tmp_path, monkeypatch, update):
    overrides = (*UPDATES[update], "numerics.micro_batch=8")
    straight = train(data, None, *overrides)
    for stop in (1, 4):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped):
            train(data, tmp_path / "run", *overrides, resume="auto")
        monkeypatch.undo()
    finished = train(data, tmp_path / "run", *overrides, resume="yes")
    assert (finished.weights_sha256, finished.test_loss) == (straight.weights_sha256, straight.test_loss)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: lars, nesterov: true}", r"nesterov=True has no place in lars, which takes momentum, momentum_changes"),
        ("{name: sgd, momentum_correction: true}", r"momentum_correction=True has no place in sgd"),
        ("{name: lamb, momentum: 0.9}", r"momentum=0.9 has no place in lamb, which takes beta1, beta2, epsilon; leave"),
        ("{name: adamw, beta1: 1}", r"optimizer.beta1=1: .*less than 1"),
        ("{clip_norm: 0}", r"optimizer.clip_norm=0: .*greater than 0"),
        ("{gradient_noise: -1}", r"optimizer.gradient_noise=-1: .*greater than or equal to 0"),
    ],
)
def test_an_option_without_a_place_or_out_of_range_is_one_clear_line(entry, message):
    with pytest.raises(RecipeError, match=message) as error:
        recipe_from(RECIPE, [f"optimizer={entry}"])
    assert "\n" not in str(error.value)


def test_the_transition_from_rmsprop_goes_by_the_runs_epochs():
    ours, alone = nn.Linear(3, 2), nn.Linear(3, 2)
    alone.load_state_dict(ours.state_dict())
    recipe = recipe_from(RECIPE, ["optimizer={name: rmsprop_warmup, center_epochs: 2, weight_decay: 0}"])
    built = named_optimizer(recipe, ours, StepPlan(Minibatch(4, 8), 110, 3))
    direct = RMSpropWarmup([(list(alone.parameters()), 0.0)], epoch_at=lambda steps: steps * 32 / 110, center_epochs=2)
    for model, optimizer in ((ours, built), (alone, direct)):
        optimizer.state()["steps"].fill_(6)
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.3)
        optimizer.step(lr=0.1)
    assert torch.equal(ours.weight, alone.weight)


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_the_resolved_recipe_loads_again(tmp_path, update):
    recipe = recipe_from(RECIPE, UPDATES[update])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert batchscale.load_recipe(tmp_path / "recipe.yaml") == recipe


def test_noise_multiplies_every_images_gradient_by_its_factor():
    noise = GradientNoise(0.5, seed=3, per_worker=4)
    model, images = nn.Linear(6, 3).double(), torch.randn(8, 6, dtype=torch.float64)
    factors = noise.factors(7, 2, 8)
    losses = [nn.functional.cross_entropy(model(x[None]), torch.tensor([1])) for x in images]
    expected = torch.autograd.grad(sum(z * loss for z, loss in zip(factors, losses, strict=True)), model.weight)[0]
    labels = torch.ones(8, dtype=torch.int64)
    loss = nn.functional.cross_entropy(noise(model(images), 7, 2), labels, reduction="sum")
    assert loss.item() == pytest.approx(float(sum(losses).detach()))
    torch.testing.assert_close(torch.autograd.grad(loss, model.weight)[0], expected)


def test_factors_hang_on_seed_step_and_worker_alone_and_have_their_mean_and_spread():
    noise = GradientNoise(0.5, seed=3, per_worker=4)
    both = noise.factors(7, 2, 8)
    assert torch.equal(both, torch.cat([noise.factors(7, 2, 4), noise.factors(7, 3, 4)]))
    others = [GradientNoise(0.5, 4, 4).factors(7, 2, 8), noise.factors(8, 2, 8), noise.factors(7, 3, 8)]
    assert not any(torch.isclose(both, other).any() for other in others)
    many = GradientNoise(0.5, 0, 10_000).factors(0, 0, 40_000)
    assert float(many.mean()) == pytest.approx(1, abs=0.015)
    assert float(many.std()) == pytest.approx(0.5, abs=0.01)
