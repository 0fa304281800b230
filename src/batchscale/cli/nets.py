"""The table of a recipe's net for a plan: shipped, kept from before, or counted now. Imports torch only to count."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from pathlib import Path

from batchscale import __version__
from batchscale.cost.step.net_table import NetTable, net_key, net_of_recipe
from batchscale.errors import DataError
from batchscale.members import MODELS
from batchscale.recipe import Recipe
from batchscale.records.files import write_json


def net_of(recipe: Recipe, folder: Path | None = None) -> NetTable:
    """A recipe's net, counted once and kept.

    Args:
        recipe: resolved.
        folder: of the data sets, for one whose examples' shape only its files say.

    Raises:
        RecipeError: the net has a layer that cannot be counted; names it.
        DataError: the shape of the examples is not known, and the data cannot be read.
    """
    entries = recipe.model_dump(mode="json")
    shipped = net_of_recipe(entries)
    if shipped is not None:
        return shipped
    file = _kept(f"{net_key(entries)}-{__version__}{_stamp(recipe.model.name)}")
    with contextlib.suppress(OSError, ValueError, DataError):  # counted anew where it is missing or damaged
        return NetTable.from_json(json.loads(file.read_text(encoding="utf-8")))
    if "own" not in (recipe.data.name, recipe.model.name):  # which is refused: nothing says what it is
        print(f"counting the layers of model.name={recipe.model.name}, once", file=sys.stderr, flush=True)
    from batchscale.build.net_counts import count_net, form_of

    document = count_net(recipe, form_of(recipe, folder))
    with contextlib.suppress(OSError):  # then it is counted each time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, document)
    return NetTable.from_json(document)


def _kept(name: str) -> Path:
    """In XDG_CACHE_HOME, else ~/.cache, which stays as it is written, and so no folder, where there is no home."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "batchscale" / "nets" / f"{name}.json"


def _stamp(name: str) -> str:
    """Of the file that a plugin's model is written in, which may change; of others nothing."""
    builder = MODELS[name] if name in MODELS and name != "own" else None
    module = getattr(builder, "__module__", "batchscale.")
    if module.startswith("batchscale.") or (file := inspect.getsourcefile(builder)) is None:  # type: ignore[arg-type]
        return ""
    return f"-{Path(file).stat().st_mtime_ns}"
