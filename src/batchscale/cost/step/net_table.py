"""A net as a plan sees it: what each of its layers computes, moves and keeps, counted once and kept as data.

Tables of the shipped recipes' nets lie in nets/, written by `make nets`; one's own is counted by the same means and
cached. Reading one imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscale.errors import DataError
from batchscale.words import did_you_mean, shown

Floats = npt.NDArray[np.float64]

COLUMNS = (
    "forward_flops", "backward_flops", "forward_bytes", "backward_bytes", "forward_fixed_bytes", "backward_fixed_bytes",
    "kept_bytes", "parameters",
)  # fmt: skip
"""Of a layer: of one example, but fixed bytes (weights, of a pass) and parameters (trained numbers)."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class NetTable:
    """Layers in forward order, in float32; an operation of a multiply and an add counts two (Floats: L).

    Args:
        name: of the net, for people.
        unit: what its examples are called.
        shape: of one example.
        examples: that an epoch of the recipe's data set has; None where that is not known without the data.
        layers: names of the modules.
        forward_flops, backward_flops: of an example.
        forward_bytes, backward_bytes: read and written for an example.
        forward_fixed_bytes, backward_fixed_bytes: read and written for a pass, whatever its examples.
        kept_bytes: of an example, from its forward pass to its backward pass.
        parameters: trained numbers, a shared one in the layer that the forward pass comes to first.
    """

    name: str
    unit: str
    shape: tuple[int, ...]
    examples: int | None
    layers: Sequence[str]
    forward_flops: Floats
    backward_flops: Floats
    forward_bytes: Floats
    backward_bytes: Floats
    forward_fixed_bytes: Floats
    backward_fixed_bytes: Floats
    kept_bytes: Floats
    parameters: Floats

    @cached_property
    def gradient_bytes(self) -> Floats:
        """Of each layer: in float32, whatever the passes' precision."""
        return self.parameters * FLOAT32_BYTES

    @property
    def flops(self) -> float:
        """Of an example, forward and backward."""
        return float(self.forward_flops.sum() + self.backward_flops.sum())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        named = {"name": self.name, "unit": self.unit, "shape": list(self.shape), "examples": self.examples}
        return (
            named
            | {"layers": list(self.layers)}
            | {column: [int(value) for value in getattr(self, column)] for column in COLUMNS}
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NetTable:
        """Of a file.

        Raises:
            DataError: it is no table of a net.
        """
        try:
            columns = {column: np.array(document[column], np.float64) for column in COLUMNS}
            layers, name, unit = document["layers"], str(document["name"]), str(document["unit"])
            shape = tuple(int(side) for side in document["shape"])
            examples = None if document["examples"] is None else int(document["examples"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"table of a net: {error}: not as `make nets` writes one; write it anew") from None
        for column, values in columns.items():
            if values.shape != (len(layers),) or not (np.isfinite(values).all() and (values >= 0).all()):
                raise DataError(f"table of a net {shown(name)}: {column} must have a number of at least 0 a layer")
        return cls(name, unit, shape, examples, layers, **columns)


def net_key(entries: Mapping[str, Any]) -> str:
    """What tells nets apart: the entries of a recipe that a layer's numbers hang on, as a short text.

    Args:
        entries: of a resolved recipe, as plain data.
    """
    data, model = entries["data"], entries["model"]
    decisive = {
        "task": entries["task"],
        "loss": entries["loss"]["kind"],
        "model": [model["name"], model["options"]],
        "data": [data[name] for name in ("name", "classes", "resize", "tokens", "sequence", "masks")],
        "size": data["augment"]["size"],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


@cache
def shipped_nets() -> Mapping[str, str]:
    """Key of a net -> name of its table."""
    text = resources.files("batchscale.cost.step").joinpath("nets", "index.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def shipped_net(name: str) -> NetTable:
    """A shipped table by its name.

    Raises:
        DataError: there is none.
    """
    names = sorted(set(shipped_nets().values()))
    if name not in names:
        raise DataError(
            f"net {shown(name)}: no shipped table; {did_you_mean(name, names)}shipped are {', '.join(names)}"
        )
    text = resources.files("batchscale.cost.step").joinpath("nets", f"{name}.json").read_text(encoding="utf-8")
    return NetTable.from_json(json.loads(text))


def net_of_recipe(entries: Mapping[str, Any]) -> NetTable | None:
    """The shipped table of a recipe's net; None where it must be counted first.

    Args:
        entries: of a resolved recipe, as plain data.
    """
    name = shipped_nets().get(net_key(entries))
    return None if name is None else shipped_net(name)
