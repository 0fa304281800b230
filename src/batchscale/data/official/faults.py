"""What becomes of a fault in a data set's files: training stops at the first, ``data check`` goes on and tells all."""

from __future__ import annotations

from collections.abc import Callable

from batchscale.errors import DataError

Tell = Callable[[DataError], None]
"""Takes a fault; where it returns, the rest of the files is looked at as far as they can be read."""


def stop(fault: DataError) -> None:
    """Raise it."""
    raise fault
