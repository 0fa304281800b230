"""`batchscale.measure.*` of one's own module, data and task."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import batchscale
from batchscale.errors import DataError, RecipeError, UsageError
from batchscale.measure.function import in_threads
from batchscale.measure.own import own_objective
from batchscale.measure.parts import trained_weights


@pytest.fixture(autouse=True)
def one_thread():
    with in_threads(1):
        yield


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


INPUTS, LABELS = drawn(40, 6), torch.arange(40) % 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def test_curvature_of_a_module_is_that_of_its_whole_hessian():
    model = net().train()
    answer = batchscale.measure.curvature(model, (INPUTS, LABELS), precision="fp64", tolerance=1e-9, probes=40)
    (row,) = answer.rows
    f = own_objective(model, (INPUTS, LABELS), precision="fp64", chunk=7)
    hessian = f.hessian_products(torch.eye(f.size, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(row.eigenvalues.values, np.linalg.eigvalsh(hessian)[::-1][:3], rtol=1e-7)
    assert row.trace.low <= np.trace(hessian) <= row.trace.high
    assert model.training
    assert next(model.parameters()).dtype == torch.float32
    parts = batchscale.measure.curvature(model, (INPUTS, LABELS), parts="0,2", gauss_newton=True, probes=0).rows
    assert [(part.part, part.weights, part.trace) for part in parts] == [("0", 35, None), ("2", 18, None)]


def test_every_form_of_data_gives_the_same_numbers():
    pairs = list(zip(INPUTS, LABELS.tolist(), strict=True))
    forms = [(INPUTS, LABELS), (INPUTS.numpy(), LABELS.numpy()), TensorDataset(INPUTS, LABELS), pairs]
    losses = [own_objective(net(), data).loss() for data in forms]
    assert losses == [losses[0]] * 4


def test_the_noise_scale_of_a_module_is_that_of_its_examples_gradients():
    model = net()
    estimate = batchscale.measure.noise_scale(model, (INPUTS, LABELS))
    f = [own_objective(model, (INPUTS[n : n + 1], LABELS[n : n + 1]), classes=3).gradient()[1] for n in range(40)]
    gradients = torch.stack(f)
    mean = gradients.mean(0)
    trace = float((gradients - mean).square().sum() / 39)
    assert estimate.trace == pytest.approx(trace, rel=1e-4)
    assert estimate.gradient_squared == pytest.approx(float(mean @ mean), rel=1e-3)


def test_bad_input_is_one_line():
    with pytest.raises(DataError, match="inputs are uint8 pictures"):
        own_objective(net(), (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), LABELS[:4]))
    with pytest.raises(DataError, match="data: is a dict"):
        own_objective(net(), {})
    with pytest.raises(RecipeError, match="task=multilabel cannot tell from the targets"):
        own_objective(net(), (INPUTS, INPUTS[:, :3]), "multilabel")
    with pytest.raises(UsageError, match="with batch norm, or a loss of a whole worker"):
        batchscale.measure.noise_scale(nn.Sequential(net(), nn.BatchNorm1d(3)), (INPUTS, LABELS))
    with pytest.raises(AttributeError, match="it has curvature"):
        batchscale.measure.temperature(net(), (INPUTS, LABELS))


def test_the_names_are_there_without_torch_until_they_are_called():
    code = "import sys, batchscale; batchscale.measure.curvature; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_question_of_ones_own_takes_its_fields_alone():
    with pytest.raises(UsageError, match=r"probs=3: .*the fields are .*probes"):
        batchscale.measure.curvature(net(), (INPUTS, LABELS), probs=3)
    with pytest.raises(UsageError, match=r"repeats=0: .*greater than or equal to 1"):
        batchscale.measure.sharpness(net(), (INPUTS, LABELS), repeats=0)
    with pytest.raises(UsageError, match="examples=8: all data that are handed in are measured"):
        batchscale.measure.curvature(net(), (INPUTS, LABELS), examples=8)


def test_the_landscape_of_a_module_has_the_losses_of_plain_passes():
    model, other = net().train(), net()
    with torch.no_grad():
        other[0].weight += 0.5
    test = INPUTS[:9] + 1, LABELS[:9]
    line = batchscale.measure.landscape(model, (INPUTS, LABELS), other=other, test=test, points=5, low=0, high=1)
    assert line.axes == ((0.0, 0.25, 0.5, 0.75, 1.0),)
    (one,) = line.landscapes
    for share, loss, tested in zip(line.axes[0], one.loss, one.test_loss, strict=True):
        middle = net()
        with torch.no_grad():
            middle[0].weight += 0.5 * share
            losses = [nn.functional.cross_entropy(middle(x), y).item() for x, y in ((INPUTS, LABELS), test)]
        assert (loss, tested) == pytest.approx(losses, rel=1e-6)
    assert torch.equal(model[0].weight, net()[0].weight)
    assert model.training
    plane = batchscale.measure.landscape(model, (INPUTS, LABELS), points=3)
    assert plane.landscapes[0].loss[4] == pytest.approx(one.loss[0], rel=1e-6)
    assert len(plane.points) == 9
    with pytest.raises(UsageError, match="form=line: the line is what leads to another module"):
        batchscale.measure.landscape(model, (INPUTS, LABELS), form="line")
    with pytest.raises(UsageError, match="other: is another net than model"):
        batchscale.measure.landscape(model, (INPUTS, LABELS), other=nn.Linear(6, 3))


def test_a_landscape_of_recomputed_averages_hangs_on_no_running_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    asked = {"dimensions": 1, "points": 3, "batch_norm": "recomputed", "per_worker": 8}
    losses = []
    for mean in (0.0, 7.0):
        model[1].running_mean.fill_(mean)
        losses.append(batchscale.measure.landscape(model, (INPUTS, LABELS), **asked).landscapes[0].loss)
        assert model[1].running_mean.tolist() == [mean] * 5
    assert losses[0] == losses[1]


def test_test_data_are_judged_by_the_averages_of_the_stated_set():
    """One pass over all of it: mean and unbiased variance of the layer's inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    inputs, test = INPUTS.double(), (2 * INPUTS[:9].double() + 1, LABELS[:9])
    asked = {"dimensions": 1, "points": 3, "batch_norm": "recomputed", "per_worker": 40}
    (one,) = batchscale.measure.landscape(model, (inputs, LABELS), test=test, **asked).landscapes
    hidden = model[0](inputs)
    model[1].running_mean.copy_(hidden.mean(0).detach())
    model[1].running_var.copy_(hidden.var(0).detach())
    losses = [nn.functional.cross_entropy(model.eval()(x), y).item() for x, y in ((inputs, LABELS), test)]
    assert (one.loss[1], one.test_loss[1]) == pytest.approx(losses, rel=1e-9)


def test_the_distance_of_modules_and_of_weights_by_name():
    start, end = net(), net()
    with torch.no_grad():
        end[0].weight[0, 0] += 3
        end[2].bias[1] -= 4
    assert batchscale.measure.distance(start, end).distances == pytest.approx((5.0,), rel=1e-6)
    named = {name: weight.detach().clone() for name, weight in start.named_parameters()}
    path = {step: {name: w + step**0.5 for name, w in named.items()} for step in (1, 4, 9)}
    travelled = batchscale.measure.distance(named, path)
    assert travelled.steps == (1, 4, 9)
    assert travelled.power.slope == pytest.approx(0.5, rel=1e-5)
    start[0].requires_grad_(False)
    assert batchscale.measure.distance(start, end).distances == pytest.approx((4.0,), rel=1e-6)
    with pytest.raises(UsageError, match=r"later, step 1: has no weight 2.weight of shape \(3, 5\)"):
        batchscale.measure.distance(start, nn.Linear(6, 5))
    with pytest.raises(UsageError, match="later: holds no step above 0"):
        batchscale.measure.distance(start, {0: end})


def test_the_sharpness_of_a_module_is_measured_and_its_weights_stay():
    model = net()
    earlier = [weight.clone() for weight in model.parameters()]
    numbers = batchscale.measure.sharpness(model, (INPUTS, LABELS), space="full", epsilon=(1e-3,), precision="fp64")
    assert [number.form for number in numbers] == ["keskar", "adaptive"]
    assert all(number.searches[0].highest > number.searches[0].start for number in numbers)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), earlier, strict=True))


def test_a_part_is_its_module_and_not_what_begins_alike():
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(12)))
    assert trained_weights(model, ["1"]) == (model[1].weight,)
    assert trained_weights(model, ["1.weight", "11"]) == (model[1].weight, model[11].weight)
