"""A net's layers counted: operations, bytes and what is kept for backward, of each module in forward order.

The net runs forward and backward once without numbers, on torch's meta device, for two counts of examples; what grows
with them is an example's, what does not is a pass's. Every operation is counted as it is dispatched: floating-point
operations by torch's own formulas (2 for a multiply and an add; matrix products, convolutions and attention, nothing
else), bytes as the sizes of all that it reads and writes, without what views only look at.

Backward operations belong to the module whose forward pass they undo. A detector looks at the values of its boxes,
which the meta device has none of, so its images are real, of random pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from batchscale.build.memory import first_line
from batchscale.errors import RecipeError


@dataclass
class LayerCounts:
    """Of one module and one pass, or of one example once they are taken apart."""

    forward_flops: float = 0
    backward_flops: float = 0
    forward_bytes: float = 0
    backward_bytes: float = 0
    kept_bytes: float = 0


@dataclass
class _Counting:
    """Where a pass is: module -> counts, in the order in which modules first compute."""

    layers: dict[str, LayerCounts] = field(default_factory=lambda: defaultdict(LayerCounts))
    stack: list[str] = field(default_factory=lambda: [""])
    undone: str | None = None

    @property
    def layer(self) -> str:
        return self.stack[-1] if self.undone is None else self.undone


class _CountOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what reaches the kernels."""

    def __init__(self, counting: _Counting) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counting = counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        if func.is_view or not (written := _num_bytes(outputs)):
            return outputs
        moved = written + _num_bytes((args, kwargs))
        formula = flop_registry.get(func._overloadpacket)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=outputs)
        counts = self._counting.layers[self._counting.layer]
        if self._counting.undone is None:
            counts.forward_flops += flops
            counts.forward_bytes += moved
        else:
            counts.backward_flops += flops
            counts.backward_bytes += moved
        return outputs


class _NameGradients(TorchFunctionMode):
    """Tells every node of the graph, before it runs in backward, whose forward pass it undoes."""

    def __init__(self, counting: _Counting) -> None:
        super().__init__()
        self._counting, self._seen = counting, set[Any]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor) and tensor.grad_fn is not None:
                self._name(tensor.grad_fn)
        return outputs

    def _name(self, node: Any) -> None:
        nodes, layer = [node], self._counting.stack[-1]
        while nodes:
            node = nodes.pop()
            if node is None or node in self._seen:
                continue
            self._seen.add(node)
            node.register_prehook(self._undo(layer))
            nodes += [previous for previous, _ in node.next_functions]

    def _undo(self, layer: str) -> Callable[[Any], None]:
        def undo(_: Any) -> None:
            self._counting.undone = layer

        return undo


def _num_bytes(structure: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(structure) if isinstance(leaf, torch.Tensor))


def counted_pass(model: nn.Module, loss: Callable[[], torch.Tensor]) -> dict[str, LayerCounts]:
    """Module -> counts of one forward and one backward pass, in the order in which they compute.

    Args:
        model: whose modules are told apart.
        loss: its forward pass and loss.
    """
    counting = _Counting()
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in kept:
            kept.add(storage._cdata)
            counting.layers[counting.layer].kept_bytes += storage.nbytes()
        return tensor

    with _modules_told(model, counting), _CountOperations(counting), _NameGradients(counting):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = loss()
        counting.undone = ""
        total.backward()  # type: ignore[no-untyped-call]
    return counting.layers


@contextmanager
def _modules_told(model: nn.Module, counting: _Counting) -> Iterator[None]:
    """While it lasts the stack says which module computes; an error says which one failed."""
    hooks = []
    for name, module in model.named_modules():

        def enter(_: Any, __: Any, name: str = name) -> None:
            counting.stack.append(name)

        def leave(_: Any, __: Any, ___: Any) -> None:
            counting.stack.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:
        layer = counting.layer or "itself"
        raise RecipeError(
            f"model: cannot be counted without numbers: its layer {layer} fails on the meta device: "
            f"{first_line(error)}; give a measured speed in place of its layers"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
