"""Recipes from files and overrides: YAML by the safe loader, dotted keys, one-line errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from batchscale.errors import RecipeError
from batchscale.recipe.explain import explained, field_of, not_a_group, optional_group, unknown_entry
from batchscale.recipe.schema import IDENTITY, Recipe
from batchscale.words import did_you_mean

_MAX_BYTES = 1 << 20  # a recipe is a page; anything larger is another kind of file


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2 floats (1e-4), and neither repeated keys nor aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) is not allowed here; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} stands twice in one mapping; keep one")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"), list("-+0123456789.")
)


def parse_yaml(text: str, origin: str) -> Any:
    """A plain YAML document.

    Args:
        text: of it.
        origin: for the message.

    Raises:
        RecipeError: it is none.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{origin}: not a plain YAML document: {reason}") from None


def shipped_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("batchscale") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def shipped_text(name: str) -> str:
    """The file of a shipped recipe, header comment included.

    Raises:
        RecipeError: no such recipe; names the nearest one.
    """
    if name not in shipped_names():
        raise RecipeError(
            f"recipe {name!r}: neither a file nor a shipped recipe; {did_you_mean(name, shipped_names())}"
            f"`batchscale recipes` lists the shipped ones"
        )
    return (resources.files("batchscale") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _read(name_or_file: str | Path) -> tuple[str, str]:
    path = Path(name_or_file)
    if not path.is_file():
        return shipped_text(str(name_or_file)), str(name_or_file)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"recipe {path}: larger than {_MAX_BYTES} bytes: not a recipe; give a recipe's YAML file")
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: cannot be read as text ({error}); give a recipe's YAML file") from None


def _typed(key: str, text: str) -> Any:
    """The value of an override: of YAML; for an entry that is text, such as a file's name, the words as typed.

    YAML would take `` #1`` for a comment, make a line break a blank, and refuse bytes that are no UTF-8. Its quotes and
    its null hold for text, too.
    """
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    field = field_of(key)
    is_text = field is not None and field.annotation in (str, str | None) and not field.metadata  # no name of a family
    if not is_text or quoted or text in _NULL:
        return parse_yaml(text, f"argument {f'{key}={text}'!r}")
    return text


_NULL = ("", "~", "null", "Null", "NULL")  # of YAML 1.2, section 10.3.2


_IN_PLACE_OF = {"learning_rate.warmup.epochs": "steps", "learning_rate.warmup.steps": "epochs"}
"""An override -> the other way to say the same, which it takes away."""


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"argument {override!r}: must be KEY=VALUE with a recipe entry's dotted name, such as minibatch.workers=64"
        )
    group = content
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        if group.get(parent) is None and optional_group(".".join(parents[: depth + 1])) is not None:
            group[parent] = {}
        group = group.setdefault(parent, {})
        if not isinstance(group, dict):
            raise unknown_entry(key)
    value = _typed(key, text)
    is_left_out = value is None and optional_group(key) is not None
    if isinstance(group.get(last), dict) and not isinstance(value, dict) and not is_left_out:
        raise not_a_group(key)
    group.pop(_IN_PLACE_OF.get(key, ""), None)
    group[last] = value


def recipe_from(content: Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a mapping, with dotted overrides applied.

    Args:
        content: the nested entries of a recipe.
        overrides: "dotted.key=value" each, the value in YAML; a file's name as it is.

    Returns:
        The frozen recipe, defaults filled in.

    Raises:
        RecipeError: an unknown key (names the nearest known one), or a value out of range.
    """
    entries = _copy(content)
    for override in overrides:
        _override(entries, override)
    try:
        return Recipe.model_validate(entries)
    except ValidationError as error:
        raise explained(error) from None


def _copy(content: Any) -> Any:
    return {k: _copy(v) for k, v in content.items()} if isinstance(content, Mapping) else content


def load_recipe(name_or_file: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by its shipped name or from a file, with dotted overrides applied.

    Args:
        name_or_file: a shipped recipe's name, or a YAML file.
        overrides: "dotted.key=value" each, the value in YAML; a file's name as it is.

    Returns:
        The frozen recipe, defaults filled in.

    Raises:
        RecipeError: no such recipe, not a plain YAML mapping, an unknown key, or a value out of range.
    """
    text, origin = _read(name_or_file)
    content = parse_yaml(text, f"recipe {origin}")
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise RecipeError(f"recipe {origin}: must be a YAML mapping of entries such as 'epochs: 20'")
    return recipe_from(content, overrides)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    content = recipe.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


_LATER: dict[str, Any] = {
    "task": "classification",
    "branch.seed": 0,
    "branch.warmup": 0,
    "learning_rate.warmup.start": None,
    "learning_rate.decay.end": None,
    "optimizer.momentum_changes": [],
    "optimizer.scale_decay": False,
    "batch_norm.recompute_examples": None,
    "loss.kind": "cross_entropy",
    "loss.class_weights": [],
    "data.masks": None,
    "data.classes": None,
    "data.train_fraction": 1.0,
    "data.resize": None,
    "data.tokens": "characters",
    "data.sequence": None,
    "data.test_share": 0.1,
    "numerics.wire": "fp32",
    "data.decode": "libjpeg",
}
"""Entries that identities of runs and studies begun before them lack: they stand in one only where they differ."""


def identity(recipe: Recipe) -> dict[str, Any]:
    """The entries that say what is trained, flattened to dotted names: compared at a resume, key of a study."""
    content = recipe.model_dump(mode="json")
    flat = flattened({name: content[name] for name in IDENTITY})
    return {name: value for name, value in flat.items() if name not in _LATER or value != _LATER[name]}


def flattened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested entries by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        inner = flattened(value) if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{last}": entry for last, entry in inner.items()}
    return flat
