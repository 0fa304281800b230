"""Plugins for tests: the example's folder, modules of a few lines, and tables that a test may add to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from batchscale import members
from batchscale.members import loading
from batchscale.recipe.optimizer import OPTIMIZER_ENTRIES, OPTIMIZERS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
TABLES = (members.MODELS, members.DATASETS, members.TASKS, members.ALL_REDUCES, members.BETWEEN, OPTIMIZERS)


@contextmanager
def tables_put_back() -> Iterator[None]:
    """Within it plugins may be loaded; after it no table, variable or module knows of them."""
    modules, path = set(sys.modules), list(sys.path)
    with mock.patch.dict(os.environ), mock.patch.dict(OPTIMIZER_ENTRIES._members), mock.patch.dict(loading._loaded):
        kept = [(dict(table._homes), dict(table._owners)) for table in TABLES]
        lists = (members.ON_DISK, members.PAIRS, members.WITH_BOXES, members.TEXTS, loading._complete_for)
        kept_lists = [list(names) for names in lists]
        try:
            yield
        finally:
            for table, (homes, owners) in zip(TABLES, kept, strict=True):
                table._homes, table._owners = homes, owners
            for names, kept_names in zip(lists, kept_lists, strict=True):
                names[:] = kept_names
            added = tuple(set(sys.path) - set(path))
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(added):
                    del sys.modules[name]
            sys.path[:] = path


def write_plugin(folder: Path, name: str, text: str) -> None:
    """A module of this name in a folder where Python finds it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
