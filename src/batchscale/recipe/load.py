"""Recipes from files and overrides: YAML by the safe loader, dotted keys, one-line errors."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from batchscale.errors import RecipeError
from batchscale.recipe.schema import IDENTITY, Recipe
from batchscale.recipe.union import fields_of
from batchscale.words import did_you_mean, nearest

_MAX_BYTES = 1 << 20  # a recipe is a page; anything larger is another kind of file


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2 floats (1e-4), and neither repeated keys nor aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) is not allowed in a recipe; write the value out")
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


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in fields_of(model).items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _dotted(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _field(key: str) -> FieldInfo | None:
    """The entry of this dotted name; None where there is no such entry."""
    kind: Any = Recipe
    field = None
    for name in key.split("."):
        if not (isinstance(kind, type) and issubclass(kind, BaseModel) and name in fields_of(kind)):
            return None
        field = fields_of(kind)[name]
        kind = field.annotation
    return field


def _typed(key: str, text: str) -> Any:
    """The value of an override: of YAML; for an entry that is text, such as a file's name, the words as typed.

    YAML would take `` #1`` for a comment, make a line break a blank, and refuse bytes that are no UTF-8. Its quotes and
    its null hold for text, too.
    """
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    field = _field(key)
    is_text = field is not None and field.annotation in (str, str | None) and not field.metadata  # no name of a family
    if not is_text or quoted or text in _NULL:
        return parse_yaml(text, f"argument {f'{key}={text}'!r}")
    return text


_NULL = ("", "~", "null", "Null", "NULL")  # of YAML 1.2, section 10.3.2


def _unknown(key: str) -> RecipeError:
    known = list(_dotted(Recipe))
    last = key.rsplit(".", 1)[-1]
    namesake = next((entry for entry in known if entry.rsplit(".", 1)[-1] == last), "")
    meant = nearest(key, known, 0.6) or namesake or nearest(key, known)
    return RecipeError(f"recipe entry {key!r}: unknown; the nearest known entry is {meant}")


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
    for parent in parents:
        group = group.setdefault(parent, {})
        if not isinstance(group, dict):
            raise _unknown(key)
    value = _typed(key, text)
    if isinstance(group.get(last), dict) and not isinstance(value, dict):
        raise _group(key)
    group.pop(_IN_PLACE_OF.get(key, ""), None)
    group[last] = value


def _group(key: str) -> RecipeError:
    below = next((k for k in _dotted(Recipe) if k.startswith(key + ".")), key)
    return RecipeError(f"recipe entry {key!r}: is a group of entries; set one of them, such as {below}")


def _named(place: tuple[int | str, ...]) -> tuple[str, str]:
    """(the entry or group that an override can set, the place below it such as "[0].epoch") of a problem.

    Pydantic's names of a union's members stand in the place, too; they are no entries, and left out.
    """
    known = set(_dotted(Recipe))
    key = ""
    for depth, part in enumerate(place):
        if key in known:
            return key, _below(place[depth:])
        key = f"{key}.{part}" if key else str(part)
    return key, ""


def _below(place: tuple[int | str, ...]) -> str:
    """A place in a list, as far as it is one: an index, and the field after it."""
    words = ""
    for part in place:
        if isinstance(part, str) and not words.endswith("]"):
            break
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
    return words


def _explain(error: ValidationError) -> RecipeError:
    problems = error.errors(include_url=False)
    first = problems[0]
    entry, below = _named(first["loc"])
    key = entry + below
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    if first["type"] == "missing":
        return RecipeError(f"recipe entry {key!r}: missing; a recipe needs it, for example {entry}=...")
    if first["type"] == "model_type" and not below:
        return _group(key)
    rules = [p["msg"] for p in problems if _named(p["loc"]) == (entry, below)]
    rule = " or ".join(dict.fromkeys(r.removeprefix("Value error, ") for r in rules))
    if first["type"] == "value_error":
        return RecipeError(f"recipe entry {key}: {rule}" if key else f"recipe: {rule}")
    if first["type"] == "tuple_type":
        rule = f"must be a list{_items(entry)}"
    value = reprlib.repr(first["input"])
    return RecipeError(f"recipe entry {key}={value}: {rule[:1].lower() + rule[1:]}; set it with {entry}=VALUE")


def _items(entry: str) -> str:
    """What a list of this entry holds, where that is groups of entries: `` of {epoch, momentum}``."""
    field = _field(entry)
    item = next(iter(get_args(field.annotation)), None) if field else None
    if isinstance(item, type) and issubclass(item, BaseModel):
        return f" of {{{', '.join(item.model_fields)}}}"
    return ""


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
        raise _explain(error) from None


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
    "learning_rate.warmup.start": None,
    "learning_rate.decay.end": None,
    "optimizer.momentum_changes": [],
    "batch_norm.recompute_examples": None,
}
"""Entries that identities of runs and studies begun before them lack: they stand in one only where they differ."""


def identity(recipe: Recipe) -> dict[str, Any]:
    """The entries that say what is trained, flattened to dotted names: compared at a resume, key of a study."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = value

    content = recipe.model_dump(mode="json")
    walk("", {name: content[name] for name in IDENTITY})
    return {name: value for name, value in flat.items() if name not in _LATER or value != _LATER[name]}
