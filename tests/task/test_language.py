"""Language: losses and scores as plain torch has them, runs as a plain loop's, the same run for any W."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.dues import stop_after
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.language.tokens import of_bytes
from batchscale.data.language.windows import TextWindows
from batchscale.errors import RecipeError
from batchscale.models import named_model
from batchscale.models.transformer import Transformer
from batchscale.order import StreamOrder
from batchscale.run.run import Stopped
from batchscale.task import Evaluated
from batchscale.task.language import Language
from batchscale.training.due import DUES

SEQUENCE, TRAINED, TESTED = 12, 44, 10
TEXT = b"Whose woods these are I think I know; his house is in the village though. "


def splits():
    train, test = (of_bytes((TEXT * 9)[: SEQUENCE * count + 5]) % 7 for count in (TRAINED, TESTED))
    return Splits("own", TextWindows(train, SEQUENCE, "7"), TextWindows(test, SEQUENCE, "7"), 7)


def logits_and_tokens():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 6, 7, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 7, (5, 6), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_sequence_is_the_mean_of_its_tokens(smoothing):
    logits, tokens = logits_and_tokens()
    losses = Language(7, smoothing).losses(logits, tokens)
    for one, target, loss in zip(logits, tokens, losses, strict=True):
        assert loss.item() == pytest.approx(F.cross_entropy(one, target, label_smoothing=smoothing).item(), rel=1e-12)


def test_scores_are_those_of_all_tokens_together():
    logits, tokens = logits_and_tokens()
    task = Language(7, label_smoothing=0.2)  # evaluated without
    passes = [
        task.evaluate_pass(lambda part: part, *part) for part in zip(logits.split(2), tokens.split(2), strict=True)
    ]
    counts = tuple(sum(one.counts for one in passes).tolist())
    scores = task.checked_scores(Evaluated(5, sum(one.loss.item() for one in passes) / 5, counts))
    nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).item()
    assert scores["cross-entropy"] == pytest.approx(nats, rel=1e-12)
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-12)
    assert scores["bits-per-token"] == pytest.approx(math.log2(math.exp(nats)), rel=1e-12)
    assert scores["token-accuracy"] == pytest.approx(100 * (logits.argmax(2) == tokens).double().mean().item())


@pytest.mark.slow  # 10 s of imports
def test_perplexity_is_torchmetrics_own():
    from torchmetrics.text import Perplexity

    logits, tokens = logits_and_tokens()
    task = Language(7)
    one = task.evaluate_pass(lambda part: part, logits, tokens)
    ours = task.scores(Evaluated(5, one.loss.item() / 5, tuple(one.counts.tolist())))
    assert ours["perplexity"] == pytest.approx(Perplexity()(logits, tokens).item(), rel=1e-6)


def test_a_perplexity_beyond_all_numbers_is_infinite_and_raises_nothing():
    assert Language(7).scores(Evaluated(1, 1000.0, (0, 6)))["perplexity"] == math.inf


RECIPE = {
    "data": {"name": "own"},
    "task": "language",
    "model": {"name": "transformer", "options": {"width": 8, "layers": 2, "heads": 2, "dropout": 0.0}},
    "minibatch": {"workers": 4, "per_worker": 4},
    "epochs": 2,
    "optimizer": {"name": "adamw", "weight_decay": 0.01},
    "learning_rate": {"reference": 0.01, "reference_minibatch": 16},
    "numerics": {"threads": 1, "evaluation_chunk": 4},
    "execution": {"device": "cpu", "log_steps": 1},
}
LSTM = "model={name: lstm, options: {width: 8, layers: 2, dropout: 0.2}}"
TRANSFORMER = "model={name: transformer, options: {width: 8, layers: 2, heads: 2, dropout: 0.2}}"
PASS = "numerics.micro_batch=4"
"""Else a trial's times choose it, and two fast runs need not have the same bits."""


def train(rank, *overrides, **options):
    result = batchscale.train(RECIPE, overrides, data=splits(), quiet=True, **options).model_dump()
    return result["weights_sha256"], result["scores"], result["train_loss"]


@pytest.mark.parametrize("model", [TRANSFORMER, LSTM])
def test_exact_runs_are_the_same_for_every_number_of_processes(model, tmp_path, monkeypatch):
    alone = train(0, "numerics.exact=true", model)
    assert in_processes(2, train, "numerics.exact=true", model) == [alone] * 2
    assert in_processes(3, train, "numerics.exact=true", model) == [alone] * 3
    monkeypatch.setitem(DUES, "stop", stop_after(3))
    with pytest.raises(Stopped):
        train(0, "numerics.exact=true", model, out=tmp_path / "run")
    monkeypatch.undo()
    assert in_processes(2, go_on, tmp_path / "run", model) == [alone] * 2
    without = model.replace("0.2", "0.0")
    assert train(0, "numerics.exact=true", without)[0] != alone[0]  # dropout was there at all


def go_on(rank, out, model):
    return train(rank, "numerics.exact=true", model, out=out, resume="yes")


@pytest.mark.parametrize("model", ["model.name=transformer", LSTM.replace("0.2", "0.0")])
def test_fast_mode_of_two_processes_is_that_of_one_to_rounding(model):
    (_, scores, _), *others = in_processes(2, train, model, PASS)
    alone = train(0, model, PASS)
    assert others[0][1] == scores == pytest.approx(alone[1], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [("transformer", {"width": 8, "layers": 2, "heads": 2}), ("lstm", {"width": 8, "layers": 2})]
)
def test_a_run_is_that_of_a_plain_loop_in_float64(name, options, tmp_path):
    """kn = 16 by one worker and by four: every recorded loss, all weights at the end, the scores."""
    torch.manual_seed(0)
    plain = named_model(name, (SEQUENCE,), 7, options).double()
    initial = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    losses = plain_losses(plain)
    for workers, per_worker in ((1, 16), (4, 4)):
        model, out = named_model(name, (SEQUENCE,), 7, options).double(), tmp_path / f"{workers}"
        model.load_state_dict(initial)
        size = f"minibatch={{workers: {workers}, per_worker: {per_worker}}}"
        result = batchscale.train(RECIPE, [size, "precision=fp64"], data=splits(), model=model, quiet=True, out=out)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-10)
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        inputs, targets = splits().test.part(slice(None))
        nats = F.cross_entropy(plain.eval()(inputs).flatten(0, 1), targets.flatten()).item()
        assert result.model_dump()["scores"]["cross-entropy"] == pytest.approx(nats, rel=1e-10)


def plain_losses(model):
    """A loop of torch's own AdamW; by the recipe's defaults norms are not decayed, all else is."""
    named = dict(model.named_parameters())
    norms = {name for name in named if "norm" in name}
    groups = [
        {"params": [named[name] for name in named.keys() - norms], "weight_decay": 0.01},
        {"params": [named[name] for name in norms], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    inputs, targets = splits().train.part(slice(None))
    order, losses = StreamOrder(0, TRAINED), []
    for step in range(math.ceil(2 * TRAINED / 16)):
        places = torch.arange(step * 16, (step + 1) * 16)
        picked = [int(order.at_places(int(p) // TRAINED, (p % TRAINED).view(1).numpy())[0]) for p in places]
        loss = F.cross_entropy(model(inputs[picked]).flatten(0, 1), targets[picked].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", ["{name: lars}", "{name: lamb}", "{name: adamw}"])
def test_the_tied_embedding_is_one_tensor_of_a_run(optimizer, tmp_path):
    overrides = (f"optimizer={optimizer}", "model.ema_decay=0.9", "learning_rate.reference=0.001", "epochs=1")
    straight = train(0, *overrides, out=tmp_path / "run")
    files = [load_file(path) for path in sorted((tmp_path / "run").glob("*.safetensors"))]
    assert len(files) == 2  # and the averages
    for tensors in files:
        assert [name for name, tensor in tensors.items() if 7 in tensor.shape] == ["embedding.weight"]
    assert in_processes(2, train, *overrides, "numerics.exact=true")[0] == train(0, *overrides, "numerics.exact=true")
    assert straight[1]["cross-entropy"] < 3


def test_a_run_of_sequences_tells_its_tokens(tmp_path):
    result = batchscale.train(RECIPE, data=splits(), quiet=True, out=tmp_path / "run").model_dump()
    assert (result["parts"], result["tokens_per_example"], result["examples"]) == ("tokens", SEQUENCE, "sequences")
    assert result["tokens_per_second"] == pytest.approx(SEQUENCE * result["examples_per_second"], rel=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["tokens_per_second"] == pytest.approx(SEQUENCE * line["sequences_per_second"], abs=1)
    evaluations = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert evaluations[-1]["tokens"] == SEQUENCE * TESTED


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model={name: cnn}",), r"model.name=cnn: needs images \(C, H, W\), the data has sequences of tokens \(12,\)"),
        (("task=classification",), r"must give logits \(4, 7\)"),
        (("loss.kind=dice",), r"loss.kind=dice: task=language has one loss of its own"),
        (("execution.stop_at={score: error, below: 3}",), r"has no score 'error'; it has cross-entropy, perplexity"),
        (("execution.stop_at={score: perplexity, above: 3}",), r"perplexity is better where it is lower"),
        (("model.options={heads: 3}",), r"model.options.heads=3: must divide width=64"),
        (("model.options={layers: 1.5}",), r"model.options.layers=1.5: must be a whole number"),
        (("model.options={dropout: 1.0}",), r"model.options.dropout=1: must be at least 0 and below 1"),
        (("model.options={width: 0}",), r"model.options.width=0: must be 1 or more"),
        (("minibatch.workers=64",), r"minibatch"),
    ],
)
def test_what_does_not_fit_is_one_line(overrides, message, tmp_path):
    with pytest.raises(RecipeError, match=message) as error:
        train(0, *overrides, out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_language_model_takes_no_images_and_language_no_labels():
    with pytest.raises(RecipeError, match=r"model.name=lstm: needs sequences of tokens \(T,\), the data has images"):
        batchscale.train("digits-cnn", ["model.name=lstm"], quiet=True)
    tokens = TensorExamples(torch.zeros(20, 5, dtype=torch.int64), torch.zeros(20, dtype=torch.int64))
    with pytest.raises(RecipeError, match=r"targets are int64 \(4,\): must be tokens int64 \(4, 5\)"):
        batchscale.train(RECIPE, data=Splits("own", tokens, tokens, 7), quiet=True)


def test_one_s_own_sequences_train_as_a_text_does():
    inputs, targets = splits().train.part(slice(None))
    own = Splits("own", TensorExamples(inputs, targets), splits().test, 7)
    result = batchscale.train(RECIPE, [PASS], data=own, quiet=True)
    assert result.weights_sha256 == train(0, PASS)[0]


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Embedding(7, 7)

    def forward(self, tokens):
        return self.inner(tokens).flatten(0, 1)


def test_a_net_whose_logits_lie_otherwise_is_refused():
    with pytest.raises(RecipeError, match=r"model: gives \(48, 7\) for 4 sequences: must give logits \(4, T, 7\)"):
        batchscale.train(RECIPE, data=splits(), model=Flat(), quiet=True)


def test_a_precision_that_a_net_has_no_kernel_for_is_one_line_before_training(monkeypatch, tmp_path):
    def forward(net, tokens):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive")  # as an LSTM in float16 on many processors
        return net.embedding(tokens) @ net.embedding.weight.T

    monkeypatch.setattr(Transformer, "forward", forward)
    with pytest.raises(
        RecipeError, match=r"precision=fp16: .*could not create a primitive; use precision=fp32"
    ) as error:
        train(0, "precision=fp16", out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
