"""Measures of a run's state at a step: opened, never changed; each answer is findings.

From Python, of one's own module, data and task, a measure's package is called: ``batchscale.measure.curvature(model,
data)``. It is loaded when it is first asked for, so that ``import batchscale`` stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    from batchscale.measure.measures import MEASURES

    home = f"{__name__}.{name}"
    if home in MEASURES.values():
        return importlib.import_module(home)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(MEASURES))}")
