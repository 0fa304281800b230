"""`measure noise-scale`: a plain loop's numbers at checkpoints of several nets, its document, and bad input."""

import json
import math
import re
from importlib import import_module

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from torch import nn

import batchscale
from batchscale.build.state import open_state
from batchscale.cli import main
from batchscale.measure.measures import MEASURE_PARTS, MEASURES, measured
from batchscale.measure.noise_scale.answer import answer_of
from batchscale.measure.noise_scale.question import Question
from batchscale.measure.stated import stated_set

KEEP = "execution.keep_checkpoints={steps: [2, 5, 8]}"
TEXT = (
    "data.sequence=16", "data.train_fraction=0.0025", "minibatch.workers=2", "minibatch.per_worker=8", "epochs=1.85",
    "learning_rate.reference=0.003", "learning_rate.warmup={kind: none}", "numerics.threads=1", KEEP,
)  # fmt: skip
NETS = {
    "plain": None,
    "transformer": "model={name: transformer, options: {layers: 1, width: 16, heads: 2}}",
    "lstm": "model={name: lstm, options: {layers: 1, width: 16}}",
}


def plain_net():
    torch.manual_seed(0)
    hidden = [layer for _ in range(3) for layer in (nn.Linear(16, 16), nn.Tanh())]
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), *hidden, nn.Linear(16, 4))
    net[3].weight.requires_grad_(False)
    net[5].weight = net[7].weight
    return net


@pytest.fixture(scope="module", params=NETS)
def run(request, data, tmp_path_factory):
    """(net, folder, what was handed in) of a run with checkpoints of three steps."""
    folder = tmp_path_factory.mktemp("run") / request.param
    if request.param == "plain":
        batchscale.train(RECIPE, ["numerics.micro_batch=8", KEEP], data=data, model=plain_net(), out=folder, quiet=True)
        return request.param, folder, {"data": data, "model": plain_net()}
    batchscale.train("topics-transformer", [*TEXT, NETS[request.param]], out=folder, quiet=True)
    return request.param, folder, {}


def plain_loop(state, examples, weighting=None):
    """|G|^2 and tr S of all examples, from a backward pass each, in float64."""
    model = state.model.double().train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = []
    for number in range(len(examples)):
        inputs, targets = examples.part(slice(number, number + 1))
        inputs = state.normalizer(inputs)
        inputs = inputs.double() if inputs.is_floating_point() else inputs
        loss, _ = state.task.train_pass(model, inputs, targets)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    stacked = torch.stack(gradients)
    if weighting is not None:
        stacked = stacked * weighting.sqrt()
    mean = stacked.mean(0)
    model.float().eval()
    return float(mean @ mean), float((stacked - mean).square().sum() / (len(examples) - 1))


@pytest.mark.parametrize("step", [2, 5, 8])
def test_the_exact_value_lies_within_the_99_percent_interval(run, step):
    net, folder, own = run
    state = open_state(folder, step, **own)
    population = len(state.dataset.train)
    gradient_squared, trace = plain_loop(state, state.dataset.train)
    whole = answer_of(Question(examples=population), [state])
    assert whole.vectorised == (net != "lstm")
    assert (whole.unit, whole.examples, whole.population) == ("example", population, population)
    assert whole.plain.gradient_squared == pytest.approx(gradient_squared, rel=1e-4)
    assert whole.plain.trace == pytest.approx(trace, rel=1e-4)
    assert whole.plain.low == pytest.approx(whole.plain.high) == pytest.approx(trace / gradient_squared, rel=1e-3)
    part = answer_of(Question(examples=population // 2, level=0.99), [state]).plain
    assert part.low <= trace / gradient_squared <= (math.inf if part.high is None else part.high)
    assert part.low < part.noise_scale


def test_under_adamw_the_preconditioned_form_is_that_of_the_plain_loop(run):
    net, folder, own = run
    state = open_state(folder, 8, **own)
    answer = answer_of(Question(examples=20), [state])
    if net == "plain":  # SGD
        assert answer.preconditioned is None
        return
    entry = state.recipe.optimizer
    named = dict(state.model.named_parameters())
    decays = [name for name in named if named[name].ndim > 1 or ("bias" in name and "norm" not in name)]
    order = [*decays, *(name for name in named if name not in decays)]
    second = {name: state.tensors[f"optimizer.second.{place}"] for place, name in enumerate(order)}
    corrected = torch.cat([second[name].double().flatten() for name in named]) / (1 - entry.beta2**8)
    weighting = 1 / (corrected.sqrt() + entry.epsilon)
    stated = stated_set(state.dataset.train, 20)
    gradient_squared, trace = plain_loop(state, stated, weighting)
    assert answer.preconditioned.trace == pytest.approx(trace, rel=1e-4)
    unbiased = gradient_squared - trace / 20 + trace / len(state.dataset.train)
    assert answer.preconditioned.gradient_squared == pytest.approx(unbiased, rel=1e-3)


def test_weights_count_once_and_frozen_ones_do_not(run):
    net, folder, own = run
    state = open_state(folder, 2, **own)
    answer = answer_of(Question(examples=20), [state])
    assert answer.weights == sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    held = sum(tensor.numel() for tensor in state.model.state_dict().values())
    assert held - answer.weights == (2 * 16 * 16 if net == "plain" else 0)  # a frozen matrix, and a shared one


def test_with_batch_norm_the_unit_is_a_worker(data, tmp_path):
    """Plain torch in training mode over each worker's images; running averages are as before."""
    batchscale.train(RECIPE, ["numerics.micro_batch=8"], data=data, out=tmp_path / "run", quiet=True)
    state = open_state(tmp_path / "run", data=data)
    averages = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    answer = answer_of(Question(examples=70), [state])
    assert all(torch.equal(buffer, averages[name]) for name, buffer in state.model.named_buffers())
    assert not state.model.training
    assert (answer.unit, answer.per_unit, answer.examples, answer.vectorised) == ("worker", 8, 64, False)
    stated = stated_set(data.splits().train, 64)
    model, gradients = state.model.train(), []
    for start in range(0, 64, 8):
        images, labels = stated.part(slice(start, start + 8))
        loss = nn.functional.cross_entropy(model(state.normalizer(images)), labels)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([g.flatten() for g in parts]).double())
    stacked = torch.stack(gradients)
    mean = stacked.mean(0)
    trace = 8 * float((stacked - mean).square().sum()) / 7
    assert answer.plain.trace == pytest.approx(trace, rel=1e-4)
    assert answer.plain.gradient_squared == pytest.approx(float(mean @ mean) - trace / 64 + trace / 110, rel=1e-4)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(nn.functional.dropout(x.flatten(1), 0.3, self.training))


def test_dropout_is_drawn_alike_every_time(data, tmp_path):
    batchscale.train(RECIPE, ["epochs=1"], data=data, model=Dropping(), out=tmp_path / "run", quiet=True)
    answers = []
    for _ in range(2):
        torch.rand(7)
        state = open_state(tmp_path / "run", data=data, model=Dropping())
        answers.append(answer_of(Question(examples=60), [state]))
    assert answers[0] == answers[1]
    assert not answers[0].vectorised


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "run"
    batchscale.train("digits-cnn", ["epochs=0.2", "numerics.threads=1"], out=folder, quiet=True)
    return folder


def test_the_document_has_its_names_and_the_findings_make_a_page(digits, capsys):
    assert main(["measure", "noise-scale", str(digits), "--examples", "320", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    promised = ("step", "noise_scale", "interval", "gradient_squared", "trace", "examples", "unit", "resolved")
    assert set(promised) <= set(document)
    assert (document["unit"], document["examples"]) == ("worker", 320)
    assert document["resolved"] == (document["noise_scale"] is not None and document["interval"][1] is not None)
    assert document["noise_scale"] == pytest.approx(document["trace"] / document["gradient_squared"])
    assert main(["report", document["folder"]]) == 0
    page = (digits / "measures" / f"noise-scale-{document['step']}" / "report.html").read_text()
    assert "tr S / |G|^2" in page
    assert (
        main(["measure", "noise-scale", str(digits), "--examples", "320", "--out", str(digits.parent / "other")]) == 0
    )
    printed = capsys.readouterr().out
    assert "workers of n = 32" in printed
    assert (digits.parent / "other" / "findings.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--examples", "63"], "--examples=63: holds no two units of 32 images.*use at least 64"),
        (["--examples", "1438"], "--examples=1438: must not exceed the 1437 training examples"),
        (["--step", "4"], "step 4: .* has no checkpoint of this step"),
        (["RUN"], "noise-scale .*: is asked of 1 run at once"),
    ],
)
def test_bad_input_is_one_line(digits, capsys, words, sentence):
    before = sorted(path for path in digits.rglob("*") if "measures" not in path.parts)
    typed = [str(digits) if word == "RUN" else word for word in words]
    assert main(["measure", "noise-scale", str(digits), *typed]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error)
    assert sorted(path for path in digits.rglob("*") if "measures" not in path.parts) == before


def test_every_measure_has_its_files_and_names():
    for home in MEASURES.values():
        for file, names in MEASURE_PARTS.items():
            assert all(hasattr(import_module(f"{home}.{file}"), name) for name in names)


def test_what_is_not_resolved_is_null(data, tmp_path):
    """Labels of chance at the first weights: two examples tell nothing of |G|^2."""
    batchscale.train(RECIPE, ["epochs=1"], data=data, model=plain_net(), out=tmp_path / "run", quiet=True)
    state = open_state(tmp_path / "run", data=data, model=plain_net())
    findings = measured("noise-scale", Question(examples=2), [state], ["batchscale"])
    assert findings.result["resolved"] is False
    assert findings.result["interval"] == [0.0, None]
    assert any("--examples 8" in line for line in findings.warnings)


def test_two_processes_find_the_same_bits(digits, capsys):
    documents = []
    for processes in ("1", "2"):
        out = str(digits.parent / f"by-{processes}")
        assert main(["measure", "noise-scale", str(digits), "--out", out, "--processes", processes, "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out) | {"folder": ""})
    assert documents[0] == documents[1]
