"""`batchscale.NoiseScale` in anybody's loop: a plain loop's numbers, by accumulation and DDP; what is refused."""

import itertools

import pytest
import torch
import torch.distributed as dist
from support.worlds import in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import batchscale
from batchscale.errors import UsageError
from batchscale.noise_scale import StepNoise

SIZES = (3, 1, 4)


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 1))
    model[4].weight = model[2].weight
    model[0].bias.requires_grad_(False)
    return model.double()


def minibatch(step):
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def expected(model, examples, sizes, population=None):
    """From each unit's mean gradient by itself."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    cuts, gradients = list(itertools.accumulate(sizes, initial=0)), []
    for first, end in itertools.pairwise(cuts):
        parts = torch.autograd.grad(model(examples[first:end]).square().mean(), weights)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    counts = torch.tensor(sizes, dtype=torch.float64)
    stacked = torch.stack(gradients)
    whole = (stacked * counts[:, None]).sum(0) / 8
    trace = float((counts * stacked.square().sum(1)).sum() - 8 * whole.square().sum()) / (len(sizes) - 1)
    return StepNoise(float(whole.square().sum()) - trace / 8 * (1 - 8 / population if population else 1), trace)


def accumulate(model, noise, examples, sizes, scale=1.0, parts=8):
    """The passes of one update: each pass's loss is its examples' sum, divided by ``parts``."""
    cuts = list(itertools.accumulate(sizes, initial=0))
    for first, end in itertools.pairwise(cuts):
        (scale * model(examples[first:end]).square().sum() / parts).backward()
        noise.passed(examples=end - first)


@pytest.mark.parametrize(("sizes", "population", "scale"), [(SIZES, None, 1.0), ((4, 4), 20, 1024.0)])
def test_accumulation_measures_what_a_plain_loop_does_and_leaves_the_gradient(sizes, population, scale):
    """Unequal passes, a shared and a frozen weight, a loss scale; every second update."""
    model, straight = net(), net()
    noise = batchscale.NoiseScale(model, minibatch=8, every=2, population=population)
    for step in range(6):
        model.zero_grad()
        accumulate(model, noise, minibatch(step), sizes, scale)
        one = noise.step(loss_scale=scale)
        assert (one is None) == (step % 2 == 0)
        if one is not None:
            assert one == pytest.approx(expected(straight, minibatch(step), sizes, population), rel=1e-10)
    plain = net()
    for first, end in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
        (scale * plain(minibatch(5)[first:end]).square().sum() / 8).backward()
    assert all(
        torch.equal(a.grad, b.grad)
        for a, b in zip(model.parameters(), plain.parameters(), strict=True)
        if a.grad is not None
    )
    assert noise.blocks.steps == 3
    noise.close()
    accumulated = noise.blocks.steps
    model(minibatch(0)).sum().backward()
    assert noise.blocks.steps == accumulated


def of_rank(rank, accumulated):
    dist.init_process_group("gloo")
    try:
        model = DistributedDataParallel(net())
        noise = batchscale.NoiseScale(model, minibatch=8)
        told = []
        for step in range(3):
            model.zero_grad()
            own = minibatch(step)[4 * rank : 4 * rank + 4]
            if accumulated:
                with model.no_sync():
                    accumulate(model, noise, own[:1], (1,), parts=4)
                accumulate(model, noise, own[1:], (3,), parts=4)
            else:
                accumulate(model, noise, own, (4,), parts=4)
            told.append(tuple(noise.step()))
        accumulate(model, noise, own[:3], (3,), parts=3)
        with pytest.raises(UsageError, match=r"held 6 examples together \(2 over 2 processes\); give minibatch=6"):
            noise.step()
        return told
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("accumulated", [False, True])
def test_processes_of_ddp_are_units_and_measure_together(accumulated):
    told = in_processes(2, of_rank, accumulated)
    assert told[0] == told[1]
    sizes = (1, 3, 1, 3) if accumulated else (4, 4)
    for step, one in enumerate(told[0]):
        assert one == pytest.approx(expected(net(), minibatch(step), sizes), rel=1e-10)


def test_an_update_that_is_not_finite_is_left_out():
    model = net()
    noise = batchscale.NoiseScale(model, minibatch=8)
    for step, factor in enumerate((1.0, float("inf"), 1.0)):
        model.zero_grad()
        accumulate(model, noise, minibatch(step) * factor, (4, 4))
        assert (noise.step() is None) == (step == 1)
    assert noise.blocks.steps == 2


def once(noise, model):
    accumulate(model, noise, minibatch(0), (8,))


def short(noise, model):
    accumulate(model, noise, minibatch(0)[:6], (3, 3))


def untold(noise, model):
    accumulate(model, noise, minibatch(0), (4, 4))
    model(minibatch(0)).sum().backward()


def twice(noise, model):
    model(minibatch(0)).sum().backward()
    model(minibatch(0)).sum().backward()


def end(loop, noise, model):
    loop(noise, model)
    noise.step()


@pytest.mark.parametrize(
    ("loop", "sentence"),
    [
        (once, "update 1 had one backward pass on one process: no second gradient; accumulate the minibatch over two"),
        (short, "minibatch=8: the passes of update 1 held 6 examples together .2 over 1 processes.; give minibatch=6"),
        (untold, "the last backward pass of update 1 was not told; call passed"),
        (twice, "a second backward pass before the first was told; call passed"),
        (lambda noise, model: noise.passed(examples=8), "without a backward pass; call it after loss.backward"),
    ],
)
def test_a_loop_that_disagrees_is_one_line(loop, sentence):
    model = net()
    noise = batchscale.NoiseScale(model, minibatch=8)
    with pytest.raises(UsageError, match=f"NoiseScale: .*{sentence}"):
        end(loop, noise, model)


def test_what_cannot_be_measured_is_one_line():
    frozen = net().requires_grad_(False)
    with pytest.raises(UsageError, match="NoiseScale: the model has no weights that are trained; give"):
        batchscale.NoiseScale(frozen, minibatch=8)
    with pytest.raises(UsageError, match="NoiseScale: population=7: holds no minibatch=8 drawn without replacement"):
        batchscale.NoiseScale(net(), minibatch=8, population=7)
    model = net()
    noise = batchscale.NoiseScale(model, minibatch=8)
    model(minibatch(0)).sum().backward()
    for examples in (0, 4.0, True, "4"):
        with pytest.raises(UsageError, match=r"NoiseScale: passed.examples=.*: must be a whole number of at least 1"):
            noise.passed(examples=examples)
    for level in (0, 1, 90, -0.5):
        with pytest.raises(UsageError, match=r"NoiseScale: level=.*: must lie between 0 and 1; use for example 0\.9"):
            noise.estimate(level)


@pytest.mark.parametrize("options", [{"minibatch": 0}, {"minibatch": 8, "every": 1.5}])
def test_its_numbers_are_whole(options):
    with pytest.raises(UsageError, match="must be a whole number of at least 1"):
        batchscale.NoiseScale(net(), **options)
