"""A captured pass, with a stub for CUDA's graphs: it replays the kernels, and nothing that Python does beside them."""

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data

import batchscale
from batchscale.build.build import build
from batchscale.build.graphs import check_graphs
from batchscale.comm import World
from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import recipe_from
from batchscale.worker.graphed_pass import GraphedPass

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GRAPHED = ("numerics.exact=true", "numerics.cuda_graph=true")


class Stub:
    """Warms up as torch does, each time forward and backward; then replays."""

    def __init__(self, statistics):
        self.statistics, self.captures, self.replays = statistics, 0, 0

    def __call__(self, module, inputs):
        self.captures += 1
        for _ in range(3):
            torch.autograd.grad(module(*inputs).sum(), list(module.parameters()), allow_unused=True)

        def replay(*live):
            self.replays += 1
            noted = dict(self.statistics.values)
            outputs = module(*live)
            self.statistics.values.clear()
            self.statistics.values.update(noted)
            return outputs

        return replay


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_exact_run_of_captured_passes_has_the_same_bits(data, precision):
    """Four steps of four workers, and a step that is repeated as a value left the range of the sums."""
    ends = []
    for graphed in (False, True):
        recipe = recipe_from(RECIPE, ["numerics.exact=true", f"precision={precision}", "model.name=resnet8"])
        images = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        own = batchscale.Dataset("own", images, images.long().sum((1, 2, 3)) % 4, images[:8], torch.zeros(8).long(), 4)
        parts = build(recipe, World(0, 1, CPU), own.splits(), own_data=True)
        stub = Stub(parts.step.statistics)
        if graphed:
            parts.step.model = GraphedPass(parts.step.model, parts.step.statistics, stub)
        feed = parts.make_feed()
        numbers = [parts.step(step, feed.passes(step)).read().numbers for step in range(4)]
        feed.close()
        ends.append((numbers, {name: tensor.clone() for name, tensor in parts.state().items()}))
        parts.close()
    assert stub.captures == 1
    assert stub.replays in (16, 20)
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(tensor, ends[1][1][name]) for name, tensor in ends[0][1].items())


def test_evaluations_and_other_shapes_run_as_ever(data):
    parts = build(recipe_from(RECIPE, ["numerics.exact=true"]), World(0, 1, CPU), data.splits(), own_data=True)
    stub = Stub(parts.step.statistics)
    graphed = GraphedPass(parts.model, parts.step.statistics, stub)
    inputs = parts.normalizer(parts.dataset.train.part(slice(8))[0])
    graphed.eval()(inputs)
    parts.step.statistics.begin_pass(1)
    with torch.no_grad():
        graphed.train()(inputs)
    assert stub.captures == 0
    for images in (inputs, inputs[:4], inputs):
        parts.step.statistics.begin_pass(1)
        graphed(images)
    assert (stub.captures, stub.replays) == (1, 2)
    parts.close()


def test_on_a_cpu_it_is_refused_in_one_line(data):
    with pytest.raises(RecipeError, match=r"cuda_graph=true: passes run on a CPU, which has no CUDA graphs; use .*fal"):
        build(recipe_from(RECIPE, GRAPHED), World(0, 1, CPU), data.splits(), own_data=True)


@pytest.mark.parametrize(
    ("overrides", "draws_random", "inputs", "reason"),
    [
        ((), True, torch.zeros(1), "draws random numbers"),
        (("batch_norm.span=2",), False, torch.zeros(1), "with batch_norm.span=2 workers wait"),
        ((), False, [torch.zeros(1)], "no single tensor"),
    ],
)
def test_what_cannot_be_captured_is_told(overrides, draws_random, inputs, reason):
    recipe = recipe_from(RECIPE, [*GRAPHED, *overrides])
    with pytest.raises(RecipeError, match=reason):
        check_graphs(recipe, CUDA, draws_random, inputs)
    check_graphs(recipe_from(RECIPE, GRAPHED), CUDA, False, torch.zeros(1))


@pytest.mark.parametrize(
    "other", [("numerics.cuda_graph=true",), (*GRAPHED, "numerics.compile=true", "minibatch.growth={kind: none}")]
)
def test_it_is_of_exact_mode_s_plain_passes(other):
    with pytest.raises(UsageError, match="graphs are captured of exact mode's passes"):
        recipe_from(RECIPE, other)
