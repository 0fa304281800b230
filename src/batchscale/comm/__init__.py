"""How processes talk: the world of W processes, and the collectives they reduce with.

The names are loaded when first used, so that whoever asks a schedule what it costs imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchscale.comm.reducer import ALGORITHMS, Choice, Reducer, Reduction
    from batchscale.comm.world.world import World

_HOME = {
    "ALGORITHMS": "reducer",
    "Choice": "reducer",
    "Reducer": "reducer",
    "Reduction": "reducer",
    "World": "world.world",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = ["ALGORITHMS", "Choice", "Reducer", "Reduction", "World"]
