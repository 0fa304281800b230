"""numerics.compile: what is compiled, and when; a backend that only counts stands in for inductor."""

import pytest
import torch
from support.runs import RECIPE

import batchscale
from batchscale.build.build import build
from batchscale.build.compiling import sizes_of_passes
from batchscale.comm import World
from batchscale.recipe import recipe_from
from batchscale.training.evaluation import evaluate
from batchscale.worker.precision import LowPrecision

CPU = torch.device("cpu")
OVERRIDES = ["model.name=resnet8", "numerics.micro_batch=24", "numerics.compile=true"]


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    labels = torch.randint(0, 4, (64,))
    return batchscale.Dataset("own", images, labels, images[:20], labels[:20], 4)


@pytest.fixture
def graphs(monkeypatch):
    """Images of every graph that was compiled, forward."""
    compiled, compile_with = [], torch.compile

    def count(graph, inputs):
        compiled.append(next(tensor.shape[0] for tensor in inputs if tensor.shape[1:] == (3, 8, 8)))
        return graph

    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_with(model, backend=count, **options))
    torch.compiler.reset()
    return compiled


@pytest.fixture
def built(data):
    opened = []

    def parts(*overrides):
        opened.append(build(recipe_from(RECIPE, overrides), World(0, 1, CPU), data.splits(), own_data=True))
        return opened[-1]

    yield parts
    for one in opened:
        one.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_size_is_compiled_whole_before_the_first_step(built, graphs, precision):
    """Of 4 workers of 8: passes of three and of one; one graph each, so no layer breaks it."""
    parts = built(*OVERRIDES, f"precision={precision}")
    assert graphs == [24, 8]
    state = {name: tensor.clone() for name, tensor in parts.state().items()}
    feed = parts.make_feed()
    for step in range(2):
        parts.step(step, feed.passes(step)).read()
    feed.close()
    assert graphs == [24, 8]
    assert parts.decided.compile_seconds > 0
    initial = built(*OVERRIDES[:-1], f"precision={precision}").state()
    assert all(torch.equal(state[name], initial[name]) for name in state)


def test_a_compiled_step_is_the_eager_one_to_rounding(built, graphs):
    grads = []
    for overrides in (OVERRIDES, OVERRIDES[:-1]):
        parts = built(*overrides)
        feed = parts.make_feed()
        answer = parts.step(0, feed.passes(0)).read()
        feed.close()
        grads.append([answer.numbers["loss"][0], *parts.model.state_dict().values()])
    for compiled, eager in zip(*grads, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_an_evaluation_is_compiled_a_graph_for_each_of_its_two_sizes(built, graphs):
    compiled, eager = built(*OVERRIDES), built(*OVERRIDES[:-1])
    del graphs[:]
    results = []
    for parts in (compiled, eager):
        results += [
            evaluate(parts.evaluation, parts.step.task, parts.dataset.test, parts.normalizer, parts.world, 8)
            for _ in range(2)
        ]
    assert graphs == [8, 4]  # 20 images in chunks of 8; none again in the second evaluation
    assert compiled.model.training
    assert results[0] == results[1]
    assert results[0].counts == results[2].counts
    assert results[0].loss == pytest.approx(results[2].loss, rel=1e-6)


def test_an_evaluation_in_a_low_precision_sums_its_losses_in_float64(built):
    parts = built("model.name=resnet8")
    task, test = parts.step.task, parts.dataset.test
    low = LowPrecision(parts.model, torch.bfloat16, CPU)
    evaluated = evaluate(low, task, test, parts.normalizer, parts.world, 8)
    inputs, labels = test.part(slice(20))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = parts.model.eval()(parts.normalizer(inputs)).float()
    wanted = torch.nn.functional.cross_entropy(logits, labels).item()
    assert evaluated.loss == pytest.approx(wanted, rel=1e-5)
    assert evaluated != evaluate(parts.model, task, test, parts.normalizer, parts.world, 8)


@pytest.mark.parametrize(("groups", "at_once", "sizes"), [(4, 1, [1]), (4, 4, [4]), (7, 3, [3, 1]), (2, 8, [2])])
def test_sizes_of_a_step_s_passes(groups, at_once, sizes):
    assert sizes_of_passes(groups, at_once) == sizes
