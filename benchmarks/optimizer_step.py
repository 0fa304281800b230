"""LARS and LAMB against torch's foreach SGD and timm's Lars and Lamb, on ResNet-50's 161 weight tensors.

python benchmarks/optimizer_step.py [cpu|cuda] [THREADS]

All in turn in one run; medians, and the median of paired ratios to torch's foreach SGD and to timm's faster variant
(plain or foreach), each with its interquartile range. Needs timm (the extra `peers`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from timm.optim.lamb import Lamb
from timm.optim.lars import Lars
from torch import nn
from torchvision.models import resnet50

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.update.lamb import LAMB
from batchscale.update.lars import LARS
from batchscale.update.sgd import SGD, decay_groups

ROUNDS = 31
LR, DECAY = 1e-4, 1e-4


def fresh(model: nn.Module) -> list[tuple[list[nn.Parameter], float]]:
    """Weights of one's own for every contender, with the same gradients, in their decay groups."""
    groups = []
    for parameters, decay in decay_groups(model, DECAY, False, False):
        copies = [nn.Parameter(p.detach().clone()) for p in parameters]
        for copy, p in zip(copies, parameters, strict=True):
            copy.grad = p.grad
        groups.append((copies, decay))
    return groups


def contenders(model: nn.Module) -> dict[str, Callable[[], object]]:
    """Name -> one step."""

    def theirs(kind: Callable[..., torch.optim.Optimizer], **options: object) -> Callable[[], object]:
        groups = [{"params": p, "weight_decay": d} for p, d in fresh(model)]
        return kind(groups, lr=LR, **options).step

    def ours(optimizer: SGD | LARS | LAMB) -> Callable[[], object]:
        return lambda: optimizer.step(lr=LR)

    return {
        "torch SGD, foreach": theirs(torch.optim.SGD, momentum=0.9, foreach=True),
        "batchscale SGD": ours(SGD(fresh(model), 0.9)),
        "batchscale LARS": ours(LARS(fresh(model), 0.9)),
        "timm Lars": theirs(Lars, momentum=0.9, foreach=False),
        "timm Lars, foreach": theirs(Lars, momentum=0.9, foreach=True),
        "batchscale LAMB": ours(LAMB(fresh(model))),
        "timm Lamb": theirs(Lamb, max_grad_norm=None, foreach=False),
        "timm Lamb, foreach": theirs(Lamb, max_grad_norm=None, foreach=True),
    }


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one step, the device's work included."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(device: str, threads: int) -> None:
    """Time, print."""
    torch.set_num_threads(threads)
    model = resnet50().to(device)
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 1e-3
    ways = contenders(model)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 2):
        for name, step in ways.items():
            taken = timed(step, device)
            if round_ >= 2:
                seconds[name].append(taken)
    kind = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {threads} threads"
    weights = sum(p.numel() for p in model.parameters())
    print(f"{kind}, torch {torch.__version__}, {weights:,} weights, {ROUNDS} rounds")
    for name, times in seconds.items():
        ms, ratio = spread([1e3 * t for t in times]), paired_ratio(times, seconds["torch SGD, foreach"])
        print(f"{name:<20} {ms.median:8.2f} ms (iqr {ms.iqr:.2f})   {ratio.median:5.2f} x SGD (iqr {ratio.iqr:.2f})")
    for ours, theirs in (("LARS", "Lars"), ("LAMB", "Lamb")):
        peers = [f"timm {theirs}", f"timm {theirs}, foreach"]
        best = min(peers, key=lambda peer: spread(seconds[peer]).median)
        ratio = paired_ratio(seconds[best], seconds[f"batchscale {ours}"])
        print(f"batchscale {ours} is {ratio.median:.2f} times as fast as {best} (iqr {ratio.iqr:.2f})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu", int(sys.argv[2]) if len(sys.argv) > 2 else 1)
