"""The environment of Python processes that are started from here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from batchscale.system.working_folder import working_folder


def without_working_folder() -> dict[str, str]:
    """Variables for a Python process, so that a module in the working folder is no library's (PYTHONSAFEPATH).

    Where that folder is the one that batchscale itself was found in (a source tree that is not installed), it stays.
    """
    root = str(Path(__file__).parents[2])
    source_tree = {"PYTHONPATH": os.pathsep.join([*_python_path(), root])} if working_folder() == root else {}
    return {"PYTHONSAFEPATH": "1", **source_tree}


def _python_path() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


@contextlib.contextmanager
def restored(*names: str) -> Iterator[None]:
    """After it, these environment variables are as they were."""
    previous = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def variables(**values: str) -> Iterator[None]:
    """Within it, these environment variables are set."""
    with restored(*values):
        os.environ.update(values)
        yield
