"""SGD with momentum and weight decay, in both forms of the paper; gradients are read in place.

With g = gradient + decay * w, m the momentum:

    reference form     u <- m u + g;                          w <- w - lr u          (Goyal et al. 2017, eq. 9)
    lr in the buffer   v <- m (lr / lr_before) v + lr g;      w <- w - v             (eq. 10 with remark 2)

Nesterov replaces u by g + m u, and v by lr g + m v. Both forms are equal under any lr, as v = lr u; without
the correction lr / lr_before they are equal only while the lr stands still.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from batchscale.update.live import Groups


class SGD:
    """The reference form, by torch's fused kernel.

    u <- m u + g; w <- w - lr u    (Nesterov: w <- w - lr (g + m u))

    Args:
        groups: (parameters, weight decay of theirs).
        momentum: m in [0, 1); the attribute of this name may be set anew between steps, both above 0.
        nesterov: look ahead.

    Attributes:
        found_inf: see ``FindsInf``.

    Examples:
        >>> weights = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = batchscale.SGD([([weights], 0.0)], momentum=0.9)
        >>> for _ in range(2):
        ...     weights.grad = torch.tensor([0.5, 0.5])
        ...     optimizer.step(lr=0.1)
        >>> weights.data
        tensor([0.8550, 1.8550])

    Source: Goyal et al. 2017, equation 9.
    """

    def __init__(self, groups: Groups, momentum: float, nesterov: bool = False) -> None:
        torch_groups: list[dict[str, Any]] = [{"params": p, "weight_decay": d} for p, d in groups if p]
        self._parameters = [p for group in torch_groups for p in group["params"]]
        self.momentum = momentum
        self.found_inf: torch.Tensor | None = None
        self._sgd = torch.optim.SGD(torch_groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)
        if momentum:  # zeros from the start: m 0 + g = g, as torch's first step, and always there to be saved
            for parameter in self._parameters:
                self._sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for group in self._sgd.param_groups:
            group["lr"], group["momentum"] = lr, self.momentum
        self._sgd.found_inf = self.found_inf  # type: ignore[attr-defined]  # as torch's GradScaler hands it over
        self._sgd.step()

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        if not self.momentum:
            return {}
        return {f"momentum.{i}": self._sgd.state[p]["momentum_buffer"] for i, p in enumerate(self._parameters)}


class SGDLrInBuffer:
    """The form with the lr absorbed in the buffer, with momentum correction.

    v <- m (lr / lr_v) v + lr g; w <- w - v    (Nesterov: w <- w - (lr g + m v))

    lr_v is the lr in which v is written: that of the last step whose lr was above zero (1 before any). A step
    at lr = 0 changes no weight, and gathers its gradient in the buffer as lr_v g.

    Args:
        groups: (parameters, weight decay of theirs).
        momentum: m in [0, 1); the attribute of this name may be set anew between steps.
        nesterov: look ahead.
        momentum_correction: multiply the buffer by lr / lr_v; False is the common mistake that remark 2 warns of.

    Source: Goyal et al. 2017, equation 10 and remark 2.
    """

    def __init__(
        self,
        groups: Groups,
        momentum: float,
        nesterov: bool = False,
        momentum_correction: bool = True,
    ) -> None:
        self._groups = [(p, d) for p, d in groups if p]
        self.momentum, self._nesterov, self._correction = momentum, nesterov, momentum_correction
        self._buffers = [[torch.zeros_like(p) for p in parameters] for parameters, _ in self._groups]
        self._buffer_lr = torch.ones((), dtype=torch.float64)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        unit = lr if lr > 0 else float(self._buffer_lr)
        ratio = unit / float(self._buffer_lr) if self._correction else 1.0
        self._buffer_lr.fill_(unit)
        for (parameters, decay), buffers in zip(self._groups, self._buffers, strict=True):
            still = [b for p, b in zip(parameters, buffers, strict=True) if p.grad is None]
            if still:  # not updated, but written in the new lr all the same
                torch._foreach_mul_(still, ratio)
            live = [(p, b) for p, b in zip(parameters, buffers, strict=True) if p.grad is not None]
            if not live:
                continue
            weights: list[torch.Tensor] = [p for p, _ in live]
            moving = [b for _, b in live]
            gradients = [p.grad for p, _ in live if p.grad is not None]
            if decay:
                gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
            torch._foreach_mul_(moving, self.momentum * ratio)
            torch._foreach_add_(moving, gradients, alpha=unit)
            if lr == 0:
                continue
            torch._foreach_add_(weights, moving, alpha=-self.momentum if self._nesterov else -1.0)
            if self._nesterov:
                torch._foreach_add_(weights, gradients, alpha=-lr)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        flat = [b for buffers in self._buffers for b in buffers]
        return {"buffer_lr": self._buffer_lr} | {f"momentum.{i}": b for i, b in enumerate(flat)}


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _scales(parameters: dict[str, nn.Parameter]) -> bool:
    """Whether a module's own parameters are those of a norm layer or a scale, whatever its class."""
    return all(p.ndim <= 1 for p in parameters.values()) and not all(name.endswith("bias") for name in parameters)


def decay_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool, decay_biases: bool
) -> list[tuple[list[nn.Parameter], float]]:
    """Trainable parameters with their weight decay: two switches, for scales and for biases.

    Scales are the gammas and betas of norm layers, and every tensor of at most one dimension that is no bias: those of
    norm layers that are not torch's, LayerScale, a temperature. Biases are the others whose name ends in "bias",
    or begins with "bias_" (of an LSTM).

    Args:
        model: its parameters in order; a shared one counts once.
        weight_decay: of all that is decayed.
        decay_norms: decay scales.
        decay_biases: decay biases.

    Returns:
        (decayed, weight_decay) and (not decayed, 0).

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
        >>> groups = batchscale.decay_groups(net, 1e-4, decay_norms=False, decay_biases=True)
        >>> [(len(parameters), decay) for parameters, decay in groups]
        [(2, 0.0001), (2, 0.0)]

    Source: Goyal et al. 2017, section 5.1 (no decay on batch norm's gamma and beta); timm (at most one dimension).
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        parameters = dict(module.named_parameters(recurse=False))
        is_norm = isinstance(module, _NORMS) or _scales(parameters)
        for name, parameter in parameters.items():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            is_bias = not is_norm and (name.endswith("bias") or name.startswith("bias_"))
            is_scale = not is_bias and (is_norm or parameter.ndim <= 1)
            spare = (is_scale and not decay_norms) or (is_bias and not decay_biases)
            (spared if spare else decayed).append(parameter)
    return [(decayed, weight_decay), (spared, 0.0)]
