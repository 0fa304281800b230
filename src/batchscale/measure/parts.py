"""The trained weights of a net, or of named parts of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from batchscale.errors import UsageError
from batchscale.words import did_you_mean


def trained_weights(model: nn.Module, names: Sequence[str] | None = None) -> tuple[nn.Parameter, ...]:
    """In the order of the model's parameters, a shared one once, frozen ones not.

    Args:
        model: the net.
        names: of modules or weights; None for the whole net.

    Raises:
        UsageError: a name that the net does not have, or nothing is trained.
    """
    every = [(name, weight) for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad]
    if names is not None:
        for name in names:
            if not any(_within(full, name) for full, _ in every):
                raise UsageError(_unknown(model, name))
        every = [(full, weight) for full, weight in every if any(_within(full, name) for name in names)]
    weights = tuple({id(weight): weight for _, weight in every}.values())
    if not weights:
        raise UsageError("model: has no weight that is trained, so its loss is no function of any; unfreeze some")
    return weights


def _within(full: str, name: str) -> bool:
    return full == name or full.startswith(f"{name}.")


def _unknown(model: nn.Module, name: str) -> str:
    every = [full for full, _ in model.named_modules() if full] + [full for full, _ in model.named_parameters()]
    if name in every:
        return f"--parts={name}: has no weight that is trained; leave it out"
    first = list(dict.fromkeys(full.partition(".")[0] for full in every))
    return (
        f"--parts={name}: the net has no such part; {did_you_mean(name, every)}it has {', '.join(first)}, and what "
        f"lies in these"
    )
