"""Batch norm of a group in several tensors: equal to torch's over all of its images, whatever the parts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.shared_batch_norm import SharedPass, alone, normalized

CPU = torch.device("cpu")


def replaced(layer, dtype=torch.float64, span=3):
    model, statistics, _, _ = replace_batch_norm(nn.Sequential(layer), dtype, CPU, span)
    return model[0], statistics


def shared_in(statistics, add=alone):
    shared = SharedPass(statistics.span, 0, add, lambda layer, images: images)
    statistics.begin_pass(statistics.span, shared)
    return shared


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 3, 2), (5, 2, 3, 2)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_parts_of_a_group_are_normalised_as_torch_does_all_of_it(shape, affine, memory_format):
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}[len(shape)]
    layer, statistics = replaced(kind(5, affine=affine).double())
    counts = (2, 4, 3)
    parts = [torch.randn(count, *shape, dtype=torch.float64) + 3 for count in counts]
    if len(shape) == 3:
        parts = [part.to(memory_format=memory_format) for part in parts]
    whole = torch.cat(parts).requires_grad_()
    parts = [part.requires_grad_() for part in parts]
    gammas = [torch.full((5,), 1.5, dtype=torch.float64, requires_grad=True) if affine else None for _ in counts]
    betas = [torch.full((5,), 0.5, dtype=torch.float64, requires_grad=True) if affine else None for _ in counts]
    outputs = normalized(layer, shared_in(statistics), parts, list(zip(gammas, betas, strict=True)))
    gamma, beta = (torch.full((5,), v, dtype=torch.float64, requires_grad=True) if affine else None for v in (1.5, 0.5))
    mean, variance = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    expected = F.batch_norm(whole, mean, variance, gamma, beta, True, 1.0, layer.eps)
    torch.testing.assert_close(torch.cat(outputs), expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    torch.autograd.backward(outputs, list(weights.split(counts)))
    expected.backward(weights)
    torch.testing.assert_close(torch.cat([part.grad for part in parts]), whole.grad, rtol=1e-10, atol=1e-12)
    if affine:
        torch.testing.assert_close(sum(g.grad for g in gammas), gamma.grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sum(b.grad for b in betas), beta.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(statistics.rows[0], torch.cat([mean, variance]), rtol=1e-12, atol=1e-12)


def test_a_large_mean_costs_no_more_digits_than_in_torch_s_kernel():
    """dL/dx of float32 images around 1,000: the mean is taken off before anything is multiplied.

    What one draw costs is how its mean happens to be rounded: errors are those of many.
    """
    torch.manual_seed(0)
    layer, statistics = replaced(nn.BatchNorm2d(2), torch.float32)

    def gradient(normalize, dtype):
        parts = [part.to(dtype).requires_grad_() for part in images.chunk(3)]
        torch.autograd.backward(normalize(parts), [weights.to(dtype)])
        return torch.cat([part.grad for part in parts]).double()

    def ours(parts):
        return torch.cat(normalized(layer, shared_in(statistics), parts, [(layer.weight, layer.bias)] * 3))

    def torchs(parts):
        return F.batch_norm(torch.cat(parts), None, None, None, None, True, eps=layer.eps)

    errors = torch.zeros(2, dtype=torch.float64)
    for _ in range(100):
        images, weights = 1000 + torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
        exact = gradient(torchs, torch.float64)
        errors += torch.stack([(gradient(way, torch.float32) - exact).abs().max() for way in (ours, torchs)])
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize("part", range(3))
def test_a_process_s_part_needs_of_the_others_only_the_sum(part):
    """What the others bring is added to rows of zeros, so a part alone gives the bits that it has among all."""
    layer, statistics = replaced(nn.BatchNorm2d(4), torch.float32)
    parts = [torch.randn(2, 4, 3, 3).requires_grad_() for _ in range(3)]
    rows = []
    outputs = normalized(
        layer, shared_in(statistics, lambda r, what: rows.append(r.clone())), parts, [(layer.weight, layer.bias)] * 3
    )
    weights = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    torch.autograd.backward(outputs, weights)
    remaining = [r.clone() for r in rows]

    def add(own, what):
        others = remaining.pop(0)
        assert not own[[p for p in range(3) if p != part]].any()
        assert torch.equal(own[part], others[part])
        own.copy_(others)

    shared = SharedPass(3, part, add, lambda layer, images: images)
    statistics.begin_pass(1, shared)
    images = parts[part].detach().requires_grad_()
    output = normalized(layer, shared, [images], [(layer.weight, layer.bias)])[0]
    assert torch.equal(output, outputs[part])
    output.backward(weights[part])
    assert torch.equal(images.grad, parts[part].grad)
    assert torch.equal(statistics.summed(), statistics.rows[0])  # of one worker: the group's, once
