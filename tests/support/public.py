"""What users call by name, and what stands on their disks: signatures, keys of result.json, identities of recipes."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any

from pydantic import BaseModel

import batchscale
from batchscale.recipe import identity, load_recipe, shipped_names
from batchscale.records import Result


def public_names() -> dict[str, Any]:
    """{name: [parameter, ...]}, and {"name.method": [parameter, ...]} for the classes among them."""
    listed: dict[str, Any] = {}
    for name in batchscale.__all__:
        thing = getattr(batchscale, name)
        listed[name] = _parameters(thing)
        if inspect.isclass(thing) and thing.__module__.startswith("batchscale") and not issubclass(thing, Exception):
            for method, value in _members(thing).items():
                if not method.startswith(("_", "model_")):
                    listed[f"{name}.{method}"] = _parameters(value)
    return listed


def _members(thing: type) -> dict[str, Any]:
    """Those that our code wrote, inherited ones too: users do not see where a method is written."""
    ours = [base for base in reversed(thing.__mro__) if base.__module__.startswith("batchscale")]
    return {name: value for base in ours for name, value in vars(base).items()}


def result_keys() -> list[str]:
    """The keys that every result.json has."""
    return list(Result.model_fields)


def identities() -> dict[str, str]:
    """{shipped recipe: sha256 of its identity}: a run on disk goes on only where its identity stayed the same."""
    written = {name: json.dumps(identity(load_recipe(name)), sort_keys=True) for name in shipped_names()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in written.items()}


def _parameters(thing: Any) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, BaseModel):
        return list(thing.model_fields)
    if isinstance(thing, (staticmethod, classmethod)):
        thing = thing.__func__
    try:
        parameters = inspect.signature(thing).parameters.values() if callable(thing) else ()
    except ValueError:  # exceptions of plain Python
        return []
    return [_written(parameter) for parameter in parameters]


def _written(parameter: inspect.Parameter) -> str:
    """Name, kind and default; annotations may become wider."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    only = " (by keyword)" if parameter.kind is parameter.KEYWORD_ONLY else ""
    return f"{stars}{parameter.name}{default}{only}"
