"""`measure sharpness`: a convex net's maximum by its corners, rescaled layers, its document and page, bad input."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.worlds import in_world
from torch import nn

import batchscale
from batchscale.cli import main
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.errors import UsageError
from batchscale.measure.objective import Objective
from batchscale.measure.sharpness.answer import Answer, OfRun
from batchscale.measure.sharpness.directions import Directions
from batchscale.measure.sharpness.maximum import Maximum
from batchscale.measure.sharpness.sharpness import Searched, Sharpness, sharpness
from batchscale.measure.sharpness.words import sentence
from batchscale.task import Classification, ScoreKind

EXAMPLES = 40


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(model, features, chunk=16, world=None):
    labels = torch.randint(0, 2, (EXAMPLES,), generator=torch.Generator().manual_seed(1))
    normalizer = Normalizer([0.0], [1.0], torch.float64, torch.contiguous_format, torch.device("cpu"))
    examples = TensorExamples(drawn(EXAMPLES, features), labels)
    return Objective(model.double(), Classification(2), examples, normalizer, chunk=chunk, world=world), examples


def searched(**changes):
    asked = {"epsilons": (0.1, 0.05), "forms": ("keskar", "adaptive"), "full": True, "subspace": 3, "repeats": 4}
    return Searched(**{**asked, "iterations": 100, "level": 0.9, **changes})


def relu_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


def test_softmax_regression_is_sharpest_in_a_corner():
    """Its loss is convex, so the maximum over any box lies in one of its corners: all of them are tried."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    f, examples = objective(model, 3)
    weights = torch.cat([model.weight.flatten(), model.bias]).detach().numpy()
    numbers = sharpness(f, searched())
    assert len(numbers) == 8
    features, labels = examples.part(slice(None))
    for number in numbers:
        count = number.subspace
        for draw, value in enumerate(number.values):
            directions = None if count is None else Directions(8, count, draw)
            matrix = np.eye(8) if count is None else np.stack([directions.moved(unit) for unit in np.eye(count)], 1)
            sides = np.abs(np.linalg.pinv(matrix) @ weights) + 1
            if number.form == "adaptive":
                matrix, sides = np.abs(weights)[:, None] * matrix, np.ones(matrix.shape[1])
            signs = np.array(list(itertools.product([-1, 1], repeat=matrix.shape[1])))
            corners = torch.from_numpy(weights + number.epsilon * (signs * sides) @ matrix.T)
            logits = torch.einsum("ef,kcf->ekc", features, corners[:, :6].view(-1, 2, 3)) + corners[:, 6:]
            losses = F.cross_entropy(
                logits.permute(0, 2, 1), labels[:, None].expand(-1, len(corners)), reduction="none"
            )
            start = F.cross_entropy(model(features), labels).item()
            highest = losses.mean(0).max().item()
            assert value == pytest.approx(100 * (highest - start) / (1 + start), rel=1e-4)


def test_rescaled_layers_change_keskars_form_and_not_the_adaptive_one():
    """W1, b1 times 10, W2 divided by it: the same function of the inputs."""
    model = relu_net()
    f, _ = objective(model, 5)
    loss, plain = f.loss(), sharpness(f, searched(epsilons=(1e-3,), iterations=10))
    with torch.no_grad():
        for weight, factor in ((model[0].weight, 10), (model[0].bias, 10), (model[2].weight, 0.1)):
            weight *= factor
    assert f.loss() == pytest.approx(loss, rel=1e-12)
    rescaled = sharpness(f, searched(epsilons=(1e-3,), iterations=10))
    for earlier, later in zip(plain, rescaled, strict=True):
        assert (earlier.form, earlier.subspace) == (later.form, later.subspace)
        if earlier.form == "adaptive":
            assert later.value == pytest.approx(earlier.value, rel=1e-5)
        else:
            assert later.value > 1.5 * earlier.value


def test_the_weights_come_back_and_chunks_change_nothing():
    model = relu_net()
    f, _ = objective(model, 5)
    weights = f.vector()
    numbers = [number.value for number in sharpness(f, searched())]
    assert torch.equal(f.vector(), weights)
    again, _ = objective(relu_net(), 5, chunk=7)
    assert [number.value for number in sharpness(again, searched())] == pytest.approx(numbers, rel=1e-6)


def values_in(world):
    f, _ = objective(relu_net(), 5, chunk=6, world=world)
    return [number.values for number in sharpness(f, searched(iterations=5))]


def test_any_number_of_processes_has_the_same_bits():
    alone = values_in(None)
    for size in (2, 3):
        assert in_world(size, values_in) == [alone] * size


def test_the_interval_is_students_over_subspaces():
    full, sub, *_ = sharpness(objective(relu_net(), 5)[0], searched(forms=("keskar",), epsilons=(0.1,), repeats=6))
    assert full.interval is None
    reach = 2.015048 * np.std(sub.values, ddof=1) / np.sqrt(6)  # Student's t of 5 degrees, 95 %
    assert sub.interval == pytest.approx((sub.value - reach, sub.value + reach), rel=1e-5)
    assert len(set(sub.values)) == 6
    apart = tuple(Maximum(0.0, highest, 1, 2, False, 1.0) for highest in (0.01, 0.5))
    assert Sharpness("keskar", 3, 0.1, apart, 0.9).interval[0] == 0  # a maximum in a box around a point is no lower


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"subspace": 67}, "--subspace=67: must not exceed the 66 trained weights of the net"),
        ({"epsilons": (1e200,)}, "--epsilon=1e\\+200: the loss is not finite"),
    ],
)
def test_what_cannot_be_searched_is_one_line(changes, sentence):
    model = relu_net()
    f, _ = objective(model, 5)
    weights = f.vector()
    with pytest.raises(UsageError, match=sentence):
        sharpness(f, searched(**changes))
    assert torch.equal(f.vector(), weights)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"full": False, "subspace": 30}, r"--subspace=30: directions of 66 weights need .* GB, and .* GB are free"),
        ({"subspace": 0}, r"--space=full: a search over 66 weights needs .* GB, and .* GB are free"),
    ],
)
def test_too_little_memory_is_one_line(monkeypatch, changes, sentence):
    monkeypatch.setattr("batchscale.measure.sharpness.sharpness.free_bytes", lambda: 1000)
    with pytest.raises(UsageError, match=sentence):
        sharpness(objective(relu_net(), 5)[0], searched(**changes))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of digits-cnn, a small minibatch and a large one."""
    folder = tmp_path_factory.mktemp("digits")
    for name, per_worker in (("small", 32), ("large", 128)):
        words = [f"minibatch.per_worker={per_worker}", "epochs=0.5", "numerics.threads=1"]
        assert main(["train", "digits-cnn", *words, "--out", str(folder / name), "--json"]) == 0
    return folder / "small", folder / "large"


def test_the_document_has_its_names_and_two_runs_make_one_page(runs, capsys):
    capsys.readouterr()
    words = ["--examples", "100", "--iterations", "3", "--subspace", "2", "--repeats", "2", "--epsilon", "1e-3"]
    assert main(["measure", "sharpness", *map(str, runs), *words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["epsilon"], document["subspace"], document["examples"]) == (1e-3, None, 100)
    rows = document["rows"]
    assert document["sharpness"] == rows[0]["sharpness"] > 0
    places = [(row["run"], row["form"], row["subspace"]) for row in rows]
    forms = [("keskar", None), ("adaptive", None), ("keskar", 2), ("adaptive", 2)]
    assert places == [(run, *form) for run in ("small", "large") for form in forms]
    assert all(max(row["iterations"]) <= 3 for row in rows)
    assert [run["minibatch"] for run in document["runs"]] == [32, 128]
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    for run, result in zip(document["runs"], results, strict=True):
        assert run["test_error_percent"] == pytest.approx(result["test_error_percent"], abs=0.01)
    assert "from least sharp on: " in document["answer"]
    assert main(["report", document["folder"]]) == 0
    page = (runs[0] / "measures" / f"sharpness-{document['step']}" / "report.html").read_text()
    assert "Keskar" in page
    assert "no proof of why a net generalises" in page


def test_parts_are_searched_by_themselves_and_a_seed_draws_other_subspaces():
    model, examples = relu_net().double(), (drawn(EXAMPLES, 5), torch.arange(EXAMPLES) % 2)
    asked = {"epsilon": (1e-2,), "form": "keskar", "subspace": 3, "repeats": 2}
    whole, first, last = (batchscale.measure.sharpness(model, examples, **asked, **more) for more in (
        {"space": "full"}, {"parts": "0", "seed": 0}, {"parts": "0", "seed": 1}))  # fmt: skip
    assert first[0].values == last[0].values  # the full space of a part has no draws
    assert not set(first[1].values) & set(last[1].values)
    f, _ = objective(relu_net(), 5)
    f = Objective(model, Classification(2), TensorExamples(*examples), f._normalizer, chunk=40, parameters=["0"])
    assert first[0].value == pytest.approx(sharpness(f, searched(epsilons=(1e-2,), iterations=10))[0].value, rel=1e-9)
    assert first[0].value < whole[0].value
    several = batchscale.measure.sharpness(model, examples, **asked, parts="0,2", space="full")
    assert several[0].values == first[0].values
    assert several[1].values != first[0].values


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_orders_of_runs_are_compared_from_best_to_worst(better):
    """By the test score the first run is the better one; Keskar's form has it first, the adaptive one last."""
    scores = (3.0, 5.0) if better == "lower" else (5.0, 3.0)
    values = {"keskar": (1.0, 2.0), "adaptive": (2.0, 1.0)}
    runs = []
    for place, name in enumerate(("a", "b")):
        maxima = {form: Maximum(0.0, pair[place] / 100, 1, 2, False, 1.0) for form, pair in values.items()}
        numbers = tuple(Sharpness(form, None, 1e-3, (found,), 0.9) for form, found in maxima.items())
        runs.append(OfRun(name, None, 1, 8, 9, 0.0, 0.1, scores[place], numbers))
    score = ScoreKind("quality", "", better)
    answer = Answer(tuple(runs), 4, 9, "images", score, searched(full=True), "averages", 0)
    assert sentence(answer) == (
        f"sharpness at epsilon 0.001, full space: keskar 1 % (a), 2 % (b); adaptive 2 % (a), 1 % (b); test: quality "
        f"{scores[0]:g} (a), quality {scores[1]:g} (b). From best to worst by the test quality, and from least sharp "
        f"on: the same order by Keskar's form, another order by the adaptive form"
    )


def test_a_document_of_parts_names_them(runs, capsys):
    capsys.readouterr()
    words = ["--examples", "50", "--iterations", "1", "--space", "full", "--epsilon", "1e-3", "--form", "keskar"]
    out = ["--out", str(runs[0].parent / "parts"), "--json"]
    assert main(["measure", "sharpness", *map(str, runs), *words, "--parts", "0,13", *out]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["part"]) for row in document["rows"]] == [
        (run, part) for run in ("small", "large") for part in ("0", "13")
    ]
    assert "% (large, 13)" in document["answer"]
    assert "order" not in document["answer"]
    assert document["answer"].count("(small)") == 1  # one test score a run


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--epsilon", "0"], "--epsilon=0: .*above 0 and below 1"),
        (["--epsilon", "a,b"], "--epsilon=a,b: .*must be numbers with commas between"),
        (["--epsilon", "1e-3,1e-3"], "--epsilon=1e-3,1e-3: .*each must stand there once"),
        (["--examples", "1438"], "--examples=1438: must not exceed the 1437 training examples"),
        (["--subspace", "1000000"], "--subspace=1000000: must not exceed the [0-9]+ trained weights"),
    ],
)
def test_bad_input_is_one_line(runs, capsys, words, sentence):
    assert main(["measure", "sharpness", str(runs[0]), "--iterations", "1", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("topics-transformer", ["data.train_fraction=0.01", "model.options={layers: 1, width: 16, heads: 2}"]),
        ("digits-scenes-unet", []),
    ],
)
def test_a_transformer_and_a_unet_are_measured_by_the_same_command(recipe, words, tmp_path, capsys):
    words = [*words, "epochs=0.05", "numerics.threads=1"]
    assert main(["train", recipe, *words, "--out", str(tmp_path / "run"), "--json"]) == 0
    capsys.readouterr()
    small = ["--examples", "16", "--iterations", "2", "--subspace", "3", "--repeats", "2", "--json"]
    assert main(["measure", "sharpness", str(tmp_path / "run"), *small]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 8
    assert all(row["sharpness"] > 0 for row in rows if row["subspace"] is None)
