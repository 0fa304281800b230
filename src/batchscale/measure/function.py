"""What makes a net's loss a function of its weights alone, twice differentiable, for as long as it is asked.

Evaluation mode (nothing is dropped), one thread (so that a sum's bits hang on no number of cores), attention in its
math form: torch's fused kernels have no second derivative, and nor has cuDNN's LSTM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from batchscale.errors import RecipeError, UsageError
from batchscale.measure.derivatives import check_second
from batchscale.structure import tensors
from batchscale.task import Task

_SEVERAL = ("is not implemented", "differentiate twice")
"""Torch's words where a backward pass has no derivative."""


@contextlib.contextmanager
def as_function(model: nn.Module, threads: int) -> Iterator[None]:
    """Within it, the model is as this module's words have it; its modes and torch's threads come back after.

    Args:
        model: of any mode.
        threads: of torch.
    """
    modes = [(module, module.training) for module in model.modules()]
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, modes)
        stack.enter_context(in_threads(threads))
        model.eval()
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent and torch.cuda.is_available():
            stack.enter_context(cudnn.flags(enabled=False))
        yield


@contextlib.contextmanager
def in_threads(threads: int) -> Iterator[None]:
    """Within it torch computes in so many threads."""
    earlier = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(earlier)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


def has_batch_norm(model: nn.Module) -> bool:
    """Whether some layer normalises over examples."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def check_function(model: nn.Module, task: Task) -> None:
    """Raise where the loss is no function of the weights alone.

    Raises:
        RecipeError: the task's loss is a worker's, or a batch norm has no running averages.
    """
    if task.unit != "example":
        raise RecipeError(
            f"task={task.name}: its loss is a whole {task.unit}'s, which hangs on the examples that stand together "
            f"(and on samples drawn of them): it is no function of the weights alone; measure the noise scale, which "
            f"takes the {task.unit} as its unit"
        )
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise RecipeError(
                f"model layer {name!r}: this batch norm keeps no running averages, so it normalises by whatever stands "
                f"together: the loss is no function of the weights alone; use track_running_stats=True"
            )


def check_drew_nothing(earlier: torch.Tensor) -> None:
    """Raise where random numbers were drawn since the generator's state was ``earlier``.

    Raises:
        UsageError: they were.
    """
    if not torch.equal(earlier, torch.get_rng_state()):
        raise UsageError(
            "model: draws random numbers in evaluation mode, too: its loss is no function of the weights alone; draw "
            "where self.training is true alone"
        )


def is_once_only(error: RuntimeError) -> bool:
    """Whether an error says that a backward pass has no derivative."""
    return any(words in str(error) for words in _SEVERAL)


def once_only(error: RuntimeError, model: nn.Module, inputs: Any) -> UsageError:
    """The error that names the layer without a second derivative.

    Args:
        error: of torch.
        model: in evaluation mode.
        inputs: of an example or two.
    """
    name = _innermost(model, inputs)
    layer = "the task's loss" if name is None else f"model layer {name!r} ({type(model.get_submodule(name)).__name__})"
    reason = " ".join(str(error).split())
    return UsageError(
        f"{layer}: has no second derivative ({reason[:160]}), and a Hessian needs one; write it of operations that "
        f"have, or measure parts of the net behind it with --parts"
    )


def _innermost(model: nn.Module, inputs: Any) -> str | None:
    """The name of the innermost module that cannot be differentiated twice."""
    calls: dict[str, tuple[Any, Any]] = {}

    def noting(name: str) -> Any:
        return lambda module, arguments, named: calls.setdefault(name, (arguments, named)) and None

    handles = [m.register_forward_pre_hook(noting(n), with_kwargs=True) for n, m in model.named_modules()]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name in sorted(calls, key=lambda name: -len(name.split("."))):
        if _fails(model.get_submodule(name), *calls[name]):
            return name
    return None


def _fails(module: nn.Module, arguments: Any, named: Any) -> bool:
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    branches = [t for t in tensors((arguments, named)) if t.requires_grad]
    try:
        outputs = [t for t in tensors(module(*arguments, **named)) if t.requires_grad]
        if not outputs or not (weights or branches):
            return False
        value = torch.stack([output.square().sum() for output in outputs]).sum()
        first = torch.autograd.grad(value, [*weights, *branches], create_graph=True, allow_unused=True)
        check_second(first)
        bent = [slope.square().sum() for slope in first if slope is not None and slope.requires_grad]
        if bent:
            torch.autograd.grad(torch.stack(bent).sum(), [*weights, *branches], allow_unused=True)
    except RuntimeError:
        return True
    return False
