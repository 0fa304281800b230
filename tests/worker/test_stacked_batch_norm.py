"""Batch norm of all groups of a pass at once: torch's on a group at a time, in as many operations for any number."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from batchscale.worker import batch_norm
from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.stacked_batch_norm import stacked_batch_norm

CPU, META = torch.device("cpu"), torch.device("meta")


def stacked(x, weight, bias, groups, eps=1e-5, dtype=torch.float32):
    means, variances = torch.full((2, groups, x.shape[1]), torch.nan, dtype=dtype).unbind()
    return stacked_batch_norm(x, weight, bias, means, variances, eps), means, variances


def one_group_at_a_time(x, groups, weight, bias):
    parts = x.chunk(groups)
    out = [nn.functional.batch_norm(part, None, None, weight, bias, True, 0.1, 1e-5) for part in parts]
    over = (0, *range(2, x.ndim))
    means = torch.stack([part.mean(over) for part in parts])
    return torch.cat(out), means, torch.stack([part.var(over) for part in parts])


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 4, 3), (12, 3, 2, 4, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_it_is_torch_s_on_one_group_at_a_time(groups, shape):
    torch.manual_seed(0)
    x = (torch.randn(shape) * 3 + 5).requires_grad_()
    weight, bias = torch.randn(2, shape[1]).unbind()
    tensors = (x, weight.requires_grad_(), bias.requires_grad_())
    pull = torch.randn(shape)
    got = stacked(*tensors, groups)
    wanted = one_group_at_a_time(x, groups, weight, bias)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad((out[0] * pull).sum(), tensors) for out in (got, wanted))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_normalised_in_float32_and_given_back_in_its_own(dtype):
    torch.manual_seed(0)
    x = (torch.randn(8, 4, 6, 6) + 20).to(dtype).requires_grad_()
    out, means, variances = stacked(x, None, None, 2)
    wide = x.detach().float().requires_grad_()
    wanted, wanted_means, wanted_variances = one_group_at_a_time(wide, 2, None, None)
    assert out.dtype == dtype
    assert means.dtype == variances.dtype == torch.float32
    torch.testing.assert_close(means, wanted_means, rtol=1e-6, atol=0)
    torch.testing.assert_close(variances, wanted_variances, rtol=1e-5, atol=0)
    assert torch.equal(out, wanted.to(dtype)) or (out - wanted).abs().max() <= torch.finfo(dtype).eps * out.abs().max()
    pull = torch.randn_like(out)
    (narrow_grad,) = torch.autograd.grad((out * pull).sum(), x)
    (wide_grad,) = torch.autograd.grad((wanted * pull.float()).sum(), wide)
    assert narrow_grad.dtype == dtype
    torch.testing.assert_close(narrow_grad.float(), wide_grad, rtol=0.02, atol=0.02 * float(wide_grad.abs().max()))


@pytest.mark.parametrize("affine", [True, False])
def test_first_and_second_derivatives_are_those_of_differences(affine):
    torch.manual_seed(0)
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = [torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else [None, None]

    def out(*tensors):
        return stacked(*tensors, 3, 1e-3, torch.float64)[0]

    assert torch.autograd.gradcheck(out, (x, *parameters))
    assert torch.autograd.gradgradcheck(out, (x, *parameters))


def test_channels_last_stay_last():
    x = torch.randn(6, 4, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    out, _, _ = stacked(x, torch.ones(4), torch.zeros(4), 3)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.counts[str(op)] += 1
        return op(*args, **(kwargs or {}))


def operations(groups):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).to(META)
    model, statistics, _, _ = replace_batch_norm(plain, torch.float32, META)
    statistics.begin_pass(groups)
    with Operations() as counted:
        model(torch.zeros(8 * groups, 3, 8, 8, device=META)).sum().backward()
    return counted.counts


def test_on_a_device_the_operations_of_a_layer_do_not_grow_with_its_groups():
    assert operations(2) == operations(64)


@pytest.mark.parametrize("groups", [2, 3])
def test_a_layer_leaves_the_same_statistics_either_way(monkeypatch, groups):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2))
    images, left = torch.randn(4 * groups, 3, 8, 8), []
    for loops in (True, False):
        monkeypatch.setattr(batch_norm, "_loops_over_groups", lambda x, loops=loops: loops)
        model, statistics, _, _ = replace_batch_norm(copy.deepcopy(plain), torch.float32, CPU)
        statistics.begin_pass(groups)
        model(images).sum().backward()
        left.append([statistics.summed(), *(p.grad for p in model.parameters())])
    for looped, stacked in zip(*left, strict=True):
        torch.testing.assert_close(stacked, looped, rtol=1e-4, atol=1e-5)
