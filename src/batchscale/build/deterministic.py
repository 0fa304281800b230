"""Deterministic algorithms: torch's switches for them, which exact mode turns on a GPU, and the layer that has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from batchscale.errors import ExactnessError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # read when cuBLAS begins: its sums are those of one workspace, so of one order
_NO_FORM = " does not have a deterministic implementation"  # torch's words; before them the name of the operation


def use_deterministic_algorithms(device: torch.device) -> None:
    """What exact mode needs of torch on a device, for this whole process; a CPU needs nothing."""
    if device.type != "cuda":
        return
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # It would write every empty tensor once more, to show where one is read before it is written: a mistake of torch's.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def switches_kept() -> Iterator[None]:
    """Around a run in somebody's process: the switches come back as they were, however it ends."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(_CUBLAS)
    try:
        yield
    finally:
        # Not where nothing was switched: torch imports its compiler for it, which wants a folder for temporary files.
        if (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()) != (
            algorithms,
            only_warn,
        ):
            torch.use_deterministic_algorithms(algorithms, warn_only=only_warn)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if workspace is None:
            os.environ.pop(_CUBLAS, None)


def lacks_a_form(error: BaseException) -> bool:
    """Whether an operation said that it has no deterministic form."""
    return isinstance(error, RuntimeError) and _NO_FORM in str(error)


def refusal(error: BaseException, model: nn.Module, run: Callable[[], Any]) -> ExactnessError:
    """The error that names the layer whose operation has no deterministic form.

    Args:
        error: of the operation.
        model: whose pass met it.
        run: the forward pass of the model once more; a loss that it gives is run backward.
    """
    operation = str(error).partition(_NO_FORM)[0]
    return ExactnessError(
        f"{_layer(model, run)}: {operation} has no deterministic form on this device, and deterministic algorithms "
        f"are on, as exact mode needs them on a GPU; use a layer that has one, execution.device=cpu, or "
        f"numerics.exact=false"
    )


def _layer(model: nn.Module, run: Callable[[], Any]) -> str:
    """In which layer a pass meets an operation without a form, in words."""
    trace = _Trace(model)
    try:
        loss = run()
        trace.close()
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            trace.watch(loss)
            loss.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if not lacks_a_form(error):
            raise
    finally:
        trace.close()
    name = trace.name
    if not name:
        return "model" if name == "" else "model, or the task's loss"
    return f"model layer {name!r} ({type(model.get_submodule(name)).__name__})"


class _Trace:
    """In which module a pass is: going forward by the calls, going backward by autograd's numbers.

    Autograd numbers operations as they are called, so those of a module's call are an interval. Hooks on a module's
    backward would say less (an operation between two layers is in neither), and refuse operations in place.

    Args:
        model: whose modules tell when they are called, until ``close``.

    Attributes:
        name: of the innermost module at hand; None where it is none of the model's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.name: str | None = None
        self._open: list[tuple[str, int]] = []
        self._closed: list[tuple[int, int, str]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        for name, module in model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(name)))
            self._handles.append(module.register_forward_hook(self._leaving))

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._open.append((name, _number()))
            self.name = name

        return enter

    def _leaving(self, *_: Any) -> None:
        name, first = self._open.pop()
        self._closed.append((first, _number(), name))
        self.name = self._open[-1][0] if self._open else None

    def watch(self, loss: torch.Tensor) -> None:
        """Let every operation of the backward pass tell that it begins."""
        nodes, seen = [loss.grad_fn], {loss.grad_fn}
        while nodes:
            node = nodes.pop()
            if node is None:
                continue
            node.register_prehook(self._beginning(node))
            beyond = {next_node for next_node, _ in node.next_functions} - seen
            seen |= beyond
            nodes += beyond

    def _beginning(self, node: Any) -> Callable[..., None]:
        def begin(*_: Any) -> None:
            number = node._sequence_nr()
            # Inner calls end before the outer ones, so the first interval that holds it is the innermost one.
            self.name = next((name for first, end, name in self._closed if first <= number < end), None)

        return begin

    def close(self) -> None:
        """Take the hooks off the modules."""
        for handle in self._handles:
            handle.remove()


def _number() -> int:
    """That autograd will give to the next operation."""
    return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
