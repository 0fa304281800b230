"""Checkpoints that versions before this one have written, brought into the words of this one.

Before 2026-11-29 a checkpoint held no weight of the running averages, which were not debiased, and fp16's loss scale as
S, the factor on the loss that is divided by kn, in place of s = S n / kn. A run that began so goes on so. Before
2026-12-01 no betas changed within a run, and the decay of averaged weights was that of every step: their updates were
counted, where now steps of the reference minibatch are.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from batchscale.minibatch import StepPlan
from batchscale.training.checkpoint import Checkpoint
from batchscale.training.parts import AVERAGES, Parts
from batchscale.worker.scale import whole_workers

_SCALE = "loss_scale.value"
_UPDATES = "optimizer.ema_steps"
_CONSTANTS = re.compile(r"optimizer\.(?:[a-z]+\.)?(betas|products)(?:\.\d+)?")


def as_of_now(checkpoint: Checkpoint, parts: Parts, plan: StepPlan) -> Checkpoint:
    """The checkpoint as this version would have written it; one of this version as it is.

    Args:
        checkpoint: of the run that goes on.
        parts: of it.
        plan: the steps that led to the checkpoint.
    """
    checkpoint = _with_constants(checkpoint, parts)
    lacking = {name: t for name, t in parts.state().items() if name.startswith(AVERAGES)}
    if not lacking.keys() - checkpoint.tensors.keys():
        return checkpoint
    # Averages that began at 0 and 1 go on with those values' whole weight, as they have begun.
    tensors = {name: torch.ones_like(t) for name, t in lacking.items()} | checkpoint.tensors
    totals = dict(checkpoint.totals)
    if _SCALE in tensors:
        tensors[_SCALE] = tensors[_SCALE] / _workers_at(plan, checkpoint.step)
        totals["loss_scales"] = [
            [step, scale / _workers_at(plan, step)] for step, scale in totals.get("loss_scales", [])
        ]
    return replace(checkpoint, tensors=tensors, totals=totals)


def _with_constants(checkpoint: Checkpoint, parts: Parts) -> Checkpoint:
    """What an optimizer keeps of constants that change, of a run where they never have."""
    tensors = dict(checkpoint.tensors)
    if (updates := tensors.get(_UPDATES)) is not None:
        tensors[_UPDATES] = updates.double()
    betas = [checkpoint.identity.get(f"optimizer.{name}") for name in ("beta1", "beta2")]
    for name, tensor in parts.state().items():
        entry = _CONSTANTS.fullmatch(name)
        if entry is None or name in tensors or None in betas:
            continue
        # Products stay what they are as a run begins: powers of these betas.
        tensors[name] = tensor.clone() if entry[1] == "products" else torch.tensor(betas, dtype=tensor.dtype)
    return replace(checkpoint, tensors=tensors)


def _workers_at(plan: StepPlan, step: float) -> float:
    """S / s in a step."""
    return whole_workers(plan.minibatch_at(min(int(step), plan.total_steps - 1)).workers)
