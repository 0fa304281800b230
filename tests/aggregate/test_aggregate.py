"""Sums over workers: right under every split, bitwise the same in exact mode, and nothing lost on the way."""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from support.devices import FakeQueue, NoWait
from support.worlds import in_world
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.aggregate.fast import IN_FLIGHT
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.engines import Aside
from batchscale.comm.world import world as worlds
from batchscale.errors import ExactnessError
from batchscale.placement import place_workers

K, N_IMAGES = 6, 4


class Net(nn.Module):
    """A frozen layer, an unused one, one that only some workers use, a tied one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.sometimes = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x, worker):
        x = torch.tanh(self.frozen(self.first(x)))
        if worker == 4:
            x = x + self.sometimes(x)
        return self.last(x + 0 * self.last.weight.sum())


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return Net().to(dtype)


def batches(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(K, N_IMAGES, 5, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(0, 3, (K, N_IMAGES), generator=generator)


def forward(model, worker, x, y, scale=1.0):
    return scale * F.cross_entropy(model(x[worker], worker), y[worker], reduction="sum") / (K * N_IMAGES)


def backward(model, worker, x, y, scale=1.0):
    loss = forward(model, worker, x, y, scale)
    loss.backward()
    return loss.detach()


def reference(dtype):
    """Gradient of the mean loss over all K n images, in one process, without any aggregator."""
    model, (x, y) = net(dtype), batches(dtype)
    for worker in range(K):
        backward(model, worker, x, y)
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def whole_loss(dtype):
    model, (x, y) = net(dtype), batches(dtype)
    with torch.no_grad():
        return sum(float(forward(model, worker, x, y)) for worker in range(K))


def reducer_of(world, algorithm):
    return Reducer(world, algorithm and Choice(((0, algorithm),)))


def fast_gradient(world, dtype, bucket_bytes, algorithm=None):
    model, (x, y) = net(dtype), batches(dtype)
    aggregator = FastAggregator(
        list(model.parameters()), reducer_of(world, algorithm), {"loss": [1], "other": [2, 3]}, ["stop"], bucket_bytes
    )
    mine = place_workers(K, world.size)[world.rank]
    for _ in range(2):  # twice: nothing may be left from the step before
        for _ in aggregator.attempts():
            aggregator.flat.counts["stop"].fill_(1)
            for worker in mine:
                if worker == mine[-1]:
                    aggregator.last_pass()
                loss = forward(model, worker, x, y)
                aggregator.flat.extras["other"] += worker
                aggregator.flat.extras["loss"] += loss.detach()
                loss.backward()
                aggregator.add()
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    return (
        grads,
        aggregator.flat.extras["other"].tolist(),
        aggregator.flat.extras["loss"].item(),
        float(aggregator.flat.counts["stop"]),
        len(aggregator.buckets),
    )


@pytest.mark.parametrize("algorithm", ["builtin", "torus"])
def test_on_gpus_the_host_waits_once_a_step_after_all_buckets_are_on_their_way(monkeypatch, algorithm):
    """It waited for every bucket, from the ninth on inside backward, behind all that the device had been given."""
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(2 * IN_FLIGHT)])
    world = World(0, 2, torch.device("cuda", 0))
    works, looked_at = [], []
    queue = world.exchanges.queue = FakeQueue(lambda: looked_at.append(len(works)) or True)
    monkeypatch.setattr(worlds.dist, "all_reduce", lambda *_, **__: works.append(NoWait()) or works[-1])
    monkeypatch.setattr(world.exchanges, "meet", lambda *_: None)
    reducer = Reducer(world, Choice(((0, algorithm),)))
    reducer._engines["torus"] = Aside(world, lambda tensor, what: works.append(NoWait()))
    monkeypatch.setattr(reducer, "zeros", lambda length, dtype: torch.zeros(length, dtype=dtype))
    aggregator = FastAggregator(list(model.parameters()), reducer, bucket_bytes=1)
    for step in (1, 2):
        for _ in aggregator.attempts():
            aggregator.last_pass()
            model(torch.ones(1, 4)).sum().backward()
            assert len(works) % len(aggregator.buckets) == len(aggregator.buckets) - 1  # all but the last, in backward
            assert len(looked_at) == step - 1
            aggregator.add()
        assert len(aggregator.buckets) > IN_FLIGHT
        assert looked_at[-1] == len(works) == step * len(aggregator.buckets)
        assert len(looked_at) == step
    if algorithm == "builtin":
        assert [work.waits for work in works] == [1] * len(works)  # the stream
    else:
        assert len(queue.followed) == len(works)


def all_fast(world):
    cases = itertools.product((torch.float32, torch.float64), (1, 200, 1 << 20))
    return [fast_gradient(world, dtype, size) for dtype, size in cases]


def every_algorithm(world):
    """Name -> what it makes of the fast gradient and of the exact sums."""
    names = Reducer(world).available() if world.size > 1 else []
    return {
        name: (fast_gradient(world, torch.float64, 200, name), exact_steps(world, 6, SCALES, algorithm=name))
        for name in names
    }


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_fast_gradient_is_that_of_the_whole_minibatch(size):
    for results, *_ in everything(size):
        for dtype, (grads, other, loss, stop, _) in zip(
            [torch.float32] * 3 + [torch.float64] * 3, results, strict=True
        ):
            expected = reference(dtype)
            assert {n for n, g in grads.items() if g is None} == {n for n, g in expected.items() if g is None}
            flat = torch.cat([g.flatten() for g in grads.values() if g is not None])
            right = torch.cat([g.flatten() for g in expected.values() if g is not None])
            assert float((flat - right).norm() / right.norm()) < (1e-5 if dtype == torch.float32 else 1e-12)
            assert stop == size
            assert other == [sum(range(K))] * 5
            assert loss == pytest.approx(whole_loss(dtype), rel=1e-5)
        counts = [buckets for *_, buckets in results]
        assert counts[0] > counts[2] == 1
    unused = {n for n, g in results[0][0].items() if g is None}
    assert unused == {"frozen.weight", "frozen.bias", "unused.weight", "unused.bias"}


def exact_steps(world, steps, scales, workers=K, algorithm=None, bucket_bytes=None):
    """Steps of growing and shrinking gradients; the bits of every sum. In buckets, they go out beside the last one."""
    model = net()
    reducer = reducer_of(world, algorithm)
    aggregator = ExactAggregator(list(model.parameters()), workers, reducer, {"loss": [1]}, ["stop"], bucket_bytes)
    assert (len(aggregator.buckets) > 2) == (bucket_bytes is not None)
    bits = []
    hosted = place_workers(workers, world.size)[world.rank]
    for step in range(steps):
        x, y = batches()
        for _ in aggregator.attempts():
            for worker in hosted:
                if worker == hosted[-1]:
                    aggregator.last_pass()
                aggregator.flat.extras["loss"] += backward(model, worker, x, y, scales[step % len(scales)])
                aggregator.add()
        bits.append(aggregator.flat.buffer[: -len(aggregator.flat.used) - 1].clone().view(torch.int32).tolist())
    return bits, aggregator.repeats, {n: p.grad is None for n, p in model.named_parameters()}


SCALES = (1.0, 1.0, 1e-3, 1e4, 1.0, 1e-9)


def test_exact_sums_are_bitwise_the_same_for_every_w():
    alone = exact_steps(World(), 12, SCALES)
    for size in (2, 3, 4):
        for _, found, _ in everything(size):
            assert found == alone
    assert alone[1] >= 2  # the first step is scaled by a repeat, and a gradient that jumps up causes one more


def test_every_algorithm_gives_the_gradient_and_the_exact_bits():
    alone = exact_steps(World(), 6, SCALES)
    expected = torch.cat([g.flatten() for g in reference(torch.float64).values() if g is not None])
    for size, least in ((2, 7), (3, 7), (4, 7)):
        for *_, found in everything(size):
            assert len(found) >= least
            for name, ((grads, *_), exact) in found.items():
                gradient = torch.cat([g.flatten() for g in grads.values() if g is not None])
                assert float((gradient - expected).norm() / expected.norm()) < 1e-12, name
                assert exact == alone, name


def both(world):
    in_buckets = exact_steps(world, 12, SCALES, bucket_bytes=256 if world.size > 1 else None)
    return all_fast(world), in_buckets, every_algorithm(world)


@functools.cache
def everything(size):
    """All kinds of sums on every rank of one world: starting processes is what takes the time."""
    return in_world(size, both) if size > 1 else [both(World())]


def test_exact_sum_is_the_gradient():
    expected = reference(torch.float64)
    model, (x, y) = net(), batches()
    aggregator = ExactAggregator(list(model.parameters()), K)
    for _ in aggregator.attempts():
        for worker in range(K):
            backward(model, worker, x, y)
            aggregator.add()
    for name, parameter in model.named_parameters():
        if expected[name] is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad.double(), expected[name], rtol=1e-5, atol=1e-7)


def order_of_workers(order, values):
    weight = nn.Parameter(torch.zeros(len(values[0])))
    aggregator = ExactAggregator([weight], len(values))
    for _ in aggregator.attempts():
        for worker in order:
            weight.grad += torch.tensor(values[worker])
            aggregator.flat._seen = [1]
            aggregator.add()
    return weight.grad.clone(), aggregator.repeats


def test_any_order_of_workers_gives_the_same_bits_and_the_correctly_rounded_sum():
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(5, 100, generator=generator) * torch.logspace(-3, 3, 100)).tolist()
    sums = [order_of_workers(order, values)[0] for order in itertools.permutations(range(5))]
    assert all(torch.equal(sums[0], other) for other in sums)
    plain = torch.zeros(100)
    for order in itertools.permutations(range(5)):
        total = torch.zeros(100)
        for worker in order:
            total += torch.tensor(values[worker])
        if order == tuple(range(5)):
            plain = total
        elif not torch.equal(plain, total):
            break
    else:
        pytest.fail("a plain float32 sum did not depend on the order: the test shows nothing")
    right = torch.tensor([math.fsum(float(torch.tensor(v[i])) for v in values) for i in range(100)])
    torch.testing.assert_close(sums[0], right.float(), rtol=0, atol=2.0**-24 * 3000)


def test_values_that_cancel_are_not_lost():
    sum_, _ = order_of_workers([0, 1, 2], [[2.0**20], [2.0**-10], [-(2.0**20)]])
    assert sum_.item() == 2.0**-10


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_comes_through_and_ends_no_loop(bad):
    sum_, repeats = order_of_workers([0, 1], [[1.0, bad, 0.0], [2.0, 1.0, 0.0]])
    assert math.isnan(sum_[1].item())
    assert repeats == 0
    two, _ = order_of_workers([0, 1], [[1.0, bad, 0.0], [2.0, -bad, 0.0]])
    assert math.isnan(two[1].item())


def test_a_resume_needs_the_ranges_and_gets_them():
    def run(broken):
        model = net()
        aggregator = ExactAggregator(list(model.parameters()), K)
        out = []
        for step in range(4):
            if broken and step == 2:
                state = {n: t.clone() for n, t in aggregator.state().items()}
                aggregator.close()
                aggregator = ExactAggregator(list(model.parameters()), K)
                for name, tensor in aggregator.state().items():
                    tensor.copy_(state[name])
            x, y = batches()
            for _ in aggregator.attempts():
                for worker in range(K):
                    backward(model, worker, x, y, SCALES[step])
                    aggregator.add()
            out.append(aggregator.flat.buffer.clone())
        return out

    for a, b in zip(run(False), run(True), strict=True):
        assert torch.equal(a, b)


def test_exact_mode_refuses_what_it_cannot_promise():
    with pytest.raises(ExactnessError, match=r"numerics.exact=true with weights of torch.float64.*precision=fp32"):
        ExactAggregator(list(net(torch.float64).parameters()), K)


def test_closing_takes_the_hooks_off():
    model = net()
    aggregator = FastAggregator(list(model.parameters()))
    assert model.last.weight._post_accumulate_grad_hooks
    aggregator.close()
    assert not model.last.weight._post_accumulate_grad_hooks


def test_a_parameter_that_is_not_dense_has_a_gradient_of_its_own():
    strided, plain = nn.Parameter(torch.randn(4, 8)[:, ::2]), nn.Parameter(torch.ones(5))
    aggregator = FastAggregator([strided, plain])
    for _ in aggregator.attempts():
        (5 * strided.sum() + plain.sum()).backward()
        aggregator.add()
    assert torch.equal(strided.grad, torch.full((4, 4), 5.0))
    assert torch.equal(plain.grad, torch.ones(5))
