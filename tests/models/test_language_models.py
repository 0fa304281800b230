"""Networks of tokens: they look back alone, have the parameters that their sizes say, and one tied embedding."""

import math

import pytest
import torch

from batchscale.models import named_model
from batchscale.update.sgd import decay_groups

SEQUENCE, VOCABULARY = 10, 11
OPTIONS = {"transformer": {"width": 8, "layers": 2, "heads": 2}, "lstm": {"width": 8, "layers": 2}}


def net(name, **options):
    torch.manual_seed(0)
    return named_model(name, (SEQUENCE,), VOCABULARY, OPTIONS[name] | options)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_token_changes_no_logits_before_it(name):
    model = net(name).double()
    tokens = torch.randint(0, VOCABULARY, (3, SEQUENCE), generator=torch.Generator().manual_seed(1))
    before = model(tokens)
    assert before.shape == (3, SEQUENCE, VOCABULARY)
    for place in range(SEQUENCE):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCABULARY
        after = model(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-14)
        assert (after[:, place:] - before[:, place:]).abs().amax((0, 2)).min() > 1e-9  # all places from there on do


@pytest.mark.parametrize(("width", "layers"), [(8, 2), (64, 2), (16, 3)])
def test_parameters_are_counted(width, layers):
    def count(name):
        return sum(p.numel() for p in net(name, width=width, layers=layers).parameters())

    block = 12 * width**2 + 13 * width  # 4 w^2 + 4 w of attention, 8 w^2 + 5 w of the linear layers, 4 w of two norms
    assert count("transformer") == (VOCABULARY + SEQUENCE) * width + layers * block + 2 * width
    assert count("lstm") == VOCABULARY * width + layers * (8 * width**2 + 8 * width) + VOCABULARY * (width + 1)


def test_the_embedding_is_tied_and_its_gradient_is_the_sum_of_both_uses():
    model = net("transformer").double()
    assert len(list(model.parameters())) == len(model.state_dict())
    tokens = torch.tensor([[3, 3, 3]])
    model(tokens)[0, -1, 5].backward()
    gradient = model.embedding.weight.grad
    assert gradient[3].abs().sum() > 0  # as an input
    assert gradient[5].abs().sum() > 0  # as an output
    assert gradient[7].abs().sum() == 0


def test_the_attention_is_softmax_of_q_k_over_sqrt_d():
    attention = net("transformer").double().blocks[0].attention
    features = torch.randn(2, SEQUENCE, 8, dtype=torch.float64)
    q, k, v = (
        part.view(2, SEQUENCE, 2, 4).transpose(1, 2) for part in attention.queries_keys_values(features).split(8, 2)
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(4)
    scores = scores.masked_fill(torch.ones(SEQUENCE, SEQUENCE).triu(1).bool(), -math.inf)
    mixed = (scores.softmax(3) @ v).transpose(1, 2).reshape(2, SEQUENCE, 8)
    torch.testing.assert_close(attention(features), attention.mixture(mixed), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIONS)
def test_dropout_hangs_on_the_seed_alone_and_is_off_in_evaluation(name):
    model = net(name, dropout=0.5)
    tokens = torch.arange(SEQUENCE)[None]

    def seeded(seed):
        torch.manual_seed(seed)
        return model(tokens)

    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    model.eval()
    assert torch.equal(seeded(1), seeded(2))
    model.load_state_dict(net(name).state_dict())
    assert torch.equal(model(tokens), net(name).eval()(tokens))


@pytest.mark.parametrize(("name", "biases"), [("transformer", 8), ("lstm", 5)])
def test_biases_of_an_lstm_are_biases_to_the_weight_decay(name, biases):
    model = net(name)
    names = {parameter: key for key, parameter in model.named_parameters()}
    (decayed, _), (spared, _) = decay_groups(model, 0.1, decay_norms=True, decay_biases=False)
    assert len(spared) == biases
    assert all("bias" in names[parameter] and "norm" not in names[parameter] for parameter in spared)
    assert len(decayed) + len(spared) == len(names)
    (_, _), (without_norms, _) = decay_groups(model, 0.1, decay_norms=False, decay_biases=True)
    assert {names[p].split(".")[-2][:4] for p in without_norms} <= {"norm"}
