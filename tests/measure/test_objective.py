"""`measure/objective.py`: closed forms of loss, gradient and products; any chunks, any W; batch norm; bad input."""

import pytest
import torch
import torch.nn.functional as F
from support.worlds import in_world
from torch import nn

from batchscale.comm import World
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.errors import RecipeError, UsageError
from batchscale.measure.chunks import ChunkSums
from batchscale.measure.derivatives import flat
from batchscale.measure.function import in_threads
from batchscale.measure.objective import Objective
from batchscale.models.lstm import LSTMLanguage
from batchscale.models.transformer import Transformer
from batchscale.models.unet import UNet
from batchscale.task import Classification
from batchscale.task.language import Language
from batchscale.task.multilabel import Multilabel
from batchscale.task.segmentation import Segmentation

EXAMPLES, FEATURES, CLASSES = 37, 5, 3


@pytest.fixture(autouse=True)
def one_thread():
    """As in a measure; passes this small gain nothing by more."""
    with in_threads(1):
        yield


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape, classes=CLASSES):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))


def normalizer(dtype=torch.float64):
    return Normalizer([0.0], [1.0], dtype, torch.contiguous_format, torch.device("cpu"))


def objective(model, task, examples, chunk=10, **settings):
    dtype = next(model.parameters()).dtype
    return Objective(model, task, TensorExamples(*examples), normalizer(dtype), chunk=chunk, **settings)


def softmax_regression(**settings):
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, CLASSES).double()
    examples = drawn(EXAMPLES, FEATURES), labels(EXAMPLES)
    return objective(model, Classification(CLASSES), examples, **settings), model, examples


def softmax_hessian(model, features):
    """(1/M) sum_i (diag p_i - p_i p_i') x (x_i 1)(x_i 1)', weights then biases."""
    p = model(features).softmax(1).detach()
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    wide = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    blocks = torch.einsum("mcd,mi,mj->cidj", inner, wide, wide) / len(features)
    order = [c * (FEATURES + 1) + i for c in range(CLASSES) for i in range(FEATURES)]
    order += [c * (FEATURES + 1) + FEATURES for c in range(CLASSES)]
    size = CLASSES * (FEATURES + 1)
    return blocks.reshape(size, size)[order][:, order]


def test_softmax_regression_has_its_closed_forms():
    f, model, (features, targets) = softmax_regression()
    loss, gradient = f.gradient()
    errors = (model(features).softmax(1) - F.one_hot(targets, CLASSES)).detach() / EXAMPLES
    closed = torch.cat([(errors.T @ features).flatten(), errors.sum(0)])
    assert loss == pytest.approx(F.cross_entropy(model(features), targets).item(), rel=1e-14)
    assert f.loss() == loss
    torch.testing.assert_close(gradient, closed, rtol=1e-12, atol=1e-15)
    identity = torch.eye(f.size, dtype=torch.float64)
    hessian = softmax_hessian(model, features)
    torch.testing.assert_close(f.hessian_products(identity), hessian, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(f.gauss_newton_products(identity), hessian, rtol=1e-12, atol=1e-15)
    vector = drawn(f.size, seed=3)
    torch.testing.assert_close(f.hessian_product(vector), hessian @ vector, rtol=1e-12, atol=1e-15)


def test_logistic_regression_has_its_closed_form():
    """Two independent logits: H = (1/M) sum_i s(z)(1 - s(z)) x_i x_i' / 2 for each."""
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, 2, bias=False).double()
    features, targets = drawn(EXAMPLES, FEATURES), labels(EXAMPLES, 2, classes=2)
    f = objective(model, Multilabel(2), (features, targets))
    s = model(features).sigmoid().detach()
    blocks = [(features * (s * (1 - s))[:, c, None]).T @ features / (2 * EXAMPLES) for c in range(2)]
    identity = torch.eye(f.size, dtype=torch.float64)
    torch.testing.assert_close(f.hessian_products(identity), torch.block_diag(*blocks), rtol=1e-12, atol=1e-15)


class Squares(Classification):
    """l = |z - y|^2 / 2."""

    name = "squares"

    def train_pass(self, model, inputs, targets):
        outputs = model(inputs)
        return (outputs - targets).square().sum() / 2, outputs


def test_linear_regression_has_the_covariance_of_its_features_as_hessian_wherever_it_stands():
    model = nn.Linear(FEATURES, 1, bias=False).double()
    features = drawn(EXAMPLES, FEATURES)
    f = objective(model, Squares(1), (features, drawn(EXAMPLES, 1, seed=2)))
    covariance = features.T @ features / EXAMPLES
    identity = torch.eye(f.size, dtype=torch.float64)
    for place in (0.0, 3.0):
        with f.at(torch.full((f.size,), place, dtype=torch.float64)):
            torch.testing.assert_close(f.hessian_products(identity), covariance, rtol=1e-12, atol=1e-15)


def hessian_by_torch(f):
    """Of torch.autograd.functional over all examples at once."""
    inputs, targets = f.examples.part(slice(len(f.examples)))
    names = [name for name, weight in f.model.named_parameters() if any(weight is w for w in f.weights)]
    shapes = [weight.shape for weight in f.weights]

    def loss(vector):
        pieces = torch.split(vector, [shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        call = lambda x: torch.func.functional_call(f.model, weights, (x,))  # noqa: E731
        return f.task.train_pass(call, inputs, targets)[0] / len(f.examples)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, f.vector())


def tied_transformer():
    net = Transformer(5, 6, 4, 1, 2, 0.5).double()
    return objective(net, Language(6), (labels(9, 5, classes=6), labels(9, 5, classes=6)), 4)


def tanh_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()
    net[2].weight.requires_grad_(False)
    return objective(net, Classification(CLASSES, 0.1), (drawn(EXAMPLES, FEATURES), labels(EXAMPLES)))


@pytest.mark.parametrize("make", [tanh_net, tied_transformer])
def test_products_of_a_net_are_those_of_its_whole_hessian(make):
    """With dropout, a shared weight and a frozen one; label smoothing."""
    f = make()
    assert f.size == sum(w.numel() for w in {id(w): w for w in f.model.parameters() if w.requires_grad}.values())
    f.model.eval()
    hessian = hessian_by_torch(f)
    f.model.train()
    vectors = torch.stack([drawn(f.size, seed=seed) for seed in (5, 6)])
    torch.testing.assert_close(f.hessian_products(vectors), vectors @ hessian, rtol=1e-9, atol=1e-12)
    assert f.model.training


def test_attention_in_its_math_form_gives_the_trained_forms_loss_and_gradient():
    net = Transformer(16, 11, 32, 2, 4, 0.0)
    tokens, targets = labels(12, 16, classes=11), labels(12, 16, classes=11)
    f = objective(net, Language(11), (tokens, targets), chunk=12)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):  # that of training on a CPU
        trained, _ = f.task.train_pass(net, tokens, targets)
        slopes = flat(torch.autograd.grad(trained / 12, f.weights), f.weights)
    loss, gradient = f.gradient()
    assert loss == pytest.approx(trained.item() / 12, rel=1e-6)
    assert (gradient - slopes).norm() < 1e-5 * slopes.norm()
    f.hessian_product(gradient)  # which the trained form does not have


def unet_objective(**settings):
    torch.manual_seed(0)
    net = UNet(1, 2, 2, 2)
    with torch.no_grad():
        for _ in range(3):
            net(drawn(8, 1, 16, 16).float())
    examples = drawn(22, 1, 16, 16, seed=4), labels(22, 16, 16, classes=2)
    return objective(net, Segmentation(2), examples, **{"chunk": 5, **settings})


def numbers(f):
    """Everything that f gives, as one vector."""
    loss, gradient = f.gradient()
    vectors = torch.stack([drawn(f.size, seed=seed) for seed in (5, 6)])
    products = [f.hessian_products(vectors), f.gauss_newton_products(vectors)]
    scalars = torch.tensor([loss, f.loss(), *f.evaluated()], dtype=torch.float64)
    return torch.cat([scalars, gradient, *(product.flatten() for product in products)])


@pytest.mark.parametrize("batch_norm", ["averages", "recomputed"])
def test_the_numbers_of_any_chunks_are_equal_to_rounding(batch_norm):
    settings = {"batch_norm": batch_norm, "per_worker": 4, "precision": "fp64"}
    whole = numbers(unet_objective(chunk=22, **settings))
    for chunk in (1, 5):
        torch.testing.assert_close(numbers(unet_objective(chunk=chunk, **settings)), whole, rtol=1e-9, atol=1e-11)


def numbers_in(world, batch_norm):
    settings = {"batch_norm": batch_norm, "per_worker": 4, "precision": "fp64"}  # float32 sums rarely round in float64
    return numbers(unet_objective(chunk=1, world=world, **settings)).tolist()


def test_the_same_bits_on_1_2_and_3_processes():
    """22 chunks in 16 parts: some parts hold two chunks, and the last round has one."""
    for batch_norm in ("averages", "recomputed"):
        alone = numbers_in(None, batch_norm)
        for size in (2, 3):
            assert in_world(size, numbers_in, batch_norm) == [alone] * size


def lettered(world):
    """A task whose score needs the predictions of all examples in their order."""
    f = objective(nn.Linear(FEATURES, 2).double(), Multilabel(2), multilabel(), chunk=3, world=world)
    with torch.no_grad():
        f.weights[0].copy_(drawn(2, FEATURES, seed=8))
        f.weights[1].zero_()
    return f.evaluated()


def multilabel():
    return drawn(EXAMPLES, FEATURES), labels(EXAMPLES, 2, classes=2)


def test_scores_of_predictions_come_from_all_processes():
    features, targets = multilabel()
    logits = features @ drawn(2, FEATURES, seed=8).T
    task = Multilabel(2)
    predictions = list(zip(logits.tolist(), targets.tolist(), strict=True))
    from batchscale.task import Evaluated

    scores = task.scores(Evaluated(EXAMPLES, 0.0, (), predictions))
    loss = task.losses(logits, targets).mean().item()
    for outcomes in ([lettered(None)], in_world(2, lettered)):
        for outcome in outcomes:
            assert outcome == pytest.approx((loss, scores["mean-ap"]), rel=1e-12)


def test_weights_come_back_bit_by_bit():
    f, _, _ = softmax_regression()
    earlier = f.vector()
    with f.at(torch.zeros(f.size)):
        assert not f.vector().any()
    assert torch.equal(f.vector(), earlier)
    f.assign(earlier + 1)
    assert torch.equal(f.vector(), earlier + 1)


def test_batch_norm_is_never_that_of_training():
    f = unet_objective()
    f.model.train()
    buffers = {name: buffer.clone() for name, buffer in f.model.named_buffers()}
    loss, _ = f.gradient()
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in f.model.named_buffers())
    assert f.model.training
    inputs, targets = f.examples.part(slice(22))
    trained = f.task.train_pass(f.model, inputs.float(), targets)[0].item() / 22
    f.model.load_state_dict(buffers, strict=False)
    evaluated = f.task.train_pass(f.model.eval(), inputs.float(), targets)[0].item() / 22
    assert loss == pytest.approx(evaluated, rel=1e-5)
    assert abs(trained - evaluated) > 1e-3


def test_recomputed_averages_follow_the_weights_and_leave_the_models_own():
    """f of the weights w, whatever the averages were: of a linear layer and one batch norm in closed form."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.BatchNorm1d(CLASSES, affine=False)).double()
    features, targets = drawn(36, FEATURES), labels(36)
    settings = {"batch_norm": "recomputed", "per_worker": 6}
    f = objective(model, Classification(CLASSES), (features, targets), **settings)
    for scale in (1.0, 5.0):
        f.assign(drawn(f.size, seed=9) * scale)
        outputs = model[0](features).detach()
        whitened = (outputs - outputs.mean(0)) / (outputs.var(0) + 1e-5).sqrt()
        assert f.loss() == pytest.approx(F.cross_entropy(whitened, targets).item(), rel=1e-10)
    assert not model[1].running_mean.any()


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope * 2


class Doubling(nn.Module):
    def forward(self, x):
        return OnceOnly.apply(x)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return F.dropout(self.linear(x), 0.3, True)


class OfWorkers(Classification):
    unit = "worker"


def small(model, task=None, **settings):
    examples = drawn(EXAMPLES, FEATURES).float(), labels(EXAMPLES)
    return objective(model, task or Classification(CLASSES), examples, **settings)


def test_bad_input_is_said_in_one_line():
    linear = nn.Linear(FEATURES, CLASSES)
    with pytest.raises(RecipeError, match="its loss is a whole worker's"):
        small(linear, OfWorkers(CLASSES))
    with pytest.raises(RecipeError, match="layer '1': this batch norm keeps no running averages"):
        small(nn.Sequential(linear, nn.BatchNorm1d(CLASSES, track_running_stats=False)))
    with pytest.raises(UsageError, match="draws random numbers in evaluation mode"):
        small(Noisy()).loss()
    with pytest.raises(
        UsageError, match=r"--parts=0.wieght: the net has no such part; did you mean 0.weight\? it has 0"
    ):
        small(nn.Sequential(linear), parameters=["0.wieght"])
    with pytest.raises(UsageError, match="--parts=1: has no weight that is trained"):
        small(nn.Sequential(linear, nn.Tanh()), parameters=["1"])
    with pytest.raises(UsageError, match="hold no pass of n = 40"):
        small(linear, batch_norm="recomputed", per_worker=40)


def test_a_layer_without_a_second_derivative_is_named():
    net = nn.Sequential(nn.Linear(FEATURES, 4), nn.Sequential(nn.Tanh(), Doubling()), nn.Linear(4, CLASSES))
    f = small(net)
    f.gradient()
    with pytest.raises(UsageError, match=r"model layer '1\.1' \(Doubling\): has no second derivative"):
        f.hessian_product(f.vector())
    behind = small(net, parameters=["2"])
    assert behind.hessian_product(behind.vector()).norm() > 0


def test_a_shared_weight_is_found_by_either_name_and_counted_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    task, examples = Classification(4), (drawn(9, 4).float(), labels(9, classes=4))
    assert objective(net, task, examples).size == 16 + 4 + 4
    assert objective(net, task, examples, parameters=["2"]).size == 16 + 4


def test_too_little_memory_halves_the_chunks_everywhere(capsys):
    sums = ChunkSums(10, 8, World())

    def of_chunk(chunk):
        if chunk.stop - chunk.start > 2:
            raise MemoryError
        return torch.tensor([float(sum(range(chunk.start, chunk.stop)))])

    assert sums.total(of_chunk, 1).tolist() == [45.0]
    assert sums.chunk == 2
    assert "chunks of 4 from here on" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--chunk=1: not even one example fits"):
        ChunkSums(10, 8, World()).total(lambda chunk: torch.empty(1 << 60), 1)


def halved(world):
    sums = ChunkSums(10, 8, world)

    def of_chunk(chunk):
        if world.rank == 0 and chunk.stop - chunk.start > 2:
            raise MemoryError
        return torch.tensor([float(sum(range(chunk.start, chunk.stop)))])

    return sums.total(of_chunk, 1).tolist(), sums.chunk


def test_a_process_with_too_little_memory_halves_the_chunks_of_all():
    first, second = in_world(2, halved)
    assert first == second == ([45.0], 2)


def test_an_lstm_and_labels_of_pictures_have_products():
    tokens = labels(6, 5, classes=6)
    f = objective(LSTMLanguage(6, 4, 1, 0.5), Language(6), (tokens, tokens))
    ahead, behind = (drawn(f.size, seed=seed) for seed in (5, 6))
    assert float(ahead @ f.hessian_product(behind)) == pytest.approx(float(behind @ f.hessian_product(ahead)), rel=1e-3)
