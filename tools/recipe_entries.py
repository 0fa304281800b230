"""A hook of mkdocs: the page of recipe entries, made from the schema when the pages are built.

Names, types, defaults and ranges are pydantic's; words are the comments beside the fields. As a script it prints the
page's tables: ``python tools/recipe_entries.py``.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from batchscale.recipe.schema import IDENTITY, Recipe
from batchscale.recipe.union import EntryUnion

MARK = "<!-- recipe entries -->"
KINDS = {"identity": "what is trained", "numerics": "how it is computed", "execution": "where and how it is watched"}
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "null": "null"}
_TYPES["object"] = "names with numbers"
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_WORDS = {  # of entries whose name says it in the code, and not on a page
    "data.name": "the data set",
    "task": "what is learned",
    "model.name": "the network; `torchvision/NAME` and `timm/NAME`, too",
    "loss.label_smoothing": "s: trains on (1 - s) of the label and s / C of each of the C classes",
    "minibatch.workers": "k",
    "minibatch.per_worker": "n",
    "minibatch.growth.kind": "the way",
    "minibatch.growth.phases": "the minibatches",
    "minibatch.growth.phases[].epoch": "from this epoch on",
    "minibatch.growth.phases[].workers": "k; left out, as it was",
    "minibatch.growth.phases[].per_worker": "n; left out, as it was",
    "minibatch.growth.learning_rate": "with the new kn by `learning_rate.scaling`, or as it was",
    "minibatch.growth.of": "which of the two grows",
    "epochs": "passes over the training set; need not be whole",
    "optimizer.name": "the update",
    "optimizer.weight_decay": "d",
    "optimizer.momentum": "m",
    "optimizer.momentum_changes[].epoch": "from this epoch on",
    "optimizer.momentum_changes[].momentum": "m",
    "optimizer.nesterov": "look ahead",
    "optimizer.momentum_correction": "multiply the buffer by lr / (lr before): Goyal et al. 2017, remark 2",
    "optimizer.beta1": "of Adam's mean",
    "optimizer.beta2": "of Adam's square",
    "optimizer.epsilon": "beside a norm or a root in a denominator",
    "learning_rate.reference": "eta, the lr at the reference minibatch",
    "learning_rate.reference_minibatch": "images",
    "learning_rate.scaling": "how the lr follows kn / reference_minibatch",
    "learning_rate.warmup.kind": "the way",
    "learning_rate.warmup.epochs": "how long, in epochs (or in steps)",
    "learning_rate.warmup.steps": "how long, in steps (or in epochs)",
    "learning_rate.decay.kind": "the way",
    "seed": "of the order of images, augmentation, first weights and noise",
    "numerics.exact": "bitwise the same weights for every W (`--exact`)",
    "numerics.memory_format": "of images and weights",
    "execution.device": "where; auto: a GPU where there is one",
    "execution.checkpoint_seconds": "from one checkpoint to the next",
    "execution.keep_checkpoints.steps": "after these steps",
    "execution.stop_below.error_percent": "the error",
    "execution.stop_below.loss": "the loss",
    "execution.stop_at.score": "its name",
    "execution.stop_at.below": "the bound, where lower is better; one of the two",
    "execution.stop_at.above": "the bound, where higher is better",
}


@dataclass(frozen=True)
class Row:
    """One entry: its dotted name, the type and range in words, the default as YAML, what it is."""

    name: str
    type: str
    range: str
    default: str
    words: str


def comments(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the comment behind it, and those on the lines above it, of a class and the classes it is made of."""
    words: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if not (issubclass(part, BaseModel) and part.__annotations__ and part.__module__.startswith("batchscale")):
            continue
        source = textwrap.dedent(inspect.getsource(part))
        remarks = {
            token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT and "fmt:" not in token.string
        }
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                first = node.lineno
                while remarks.get(first - 1, ("", False))[1]:
                    first -= 1
                lines = [*range(first, node.lineno), node.end_lineno or node.lineno]
                words[node.target.id] = " ".join(remarks[line][0] for line in lines if line in remarks)
    return words


def _typed(schema: dict[str, Any]) -> tuple[str, str]:
    """(type, range) in words, of a JSON schema."""
    if "anyOf" in schema:
        parts = [_typed(part) for part in schema["anyOf"]]
        return " or ".join(part[0] for part in parts), "; ".join(dict.fromkeys(part[1] for part in parts if part[1]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")])), ""
    if schema.get("type") == "array" and "prefixItems" in schema:
        kind, bounds = _typed(schema["prefixItems"][0])
        return f"list of {len(schema['prefixItems'])}: {kind}", bounds
    if schema.get("type") == "array":
        kind, bounds = _typed(schema["items"])
        return f"list: {kind}", bounds
    if "$ref" in schema:
        return "group", ""
    bounds = ", ".join(f"{word} {_number(schema[bound])}" for bound, word in _BOUNDS.items() if bound in schema)
    return _TYPES[schema["type"]], bounds


def _number(value: float) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 30 and value == 2**power else f"{value:.10g}"


def _names(adapter: TypeAdapter[Any]) -> list[str]:
    """The names that an entry takes which is a member of a family: its error lists them."""
    try:
        adapter.validate_python("?")
    except ValidationError as error:
        listed = error.errors()[0].get("ctx", {}).get("expected", "").split(", or one of")[0]
        return [name.strip(" '") for name in listed.replace(" or ", ", ").split(",") if name.strip().startswith("'")]
    return []


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, bool) or value is None:
        return f"`{ {True: 'true', False: 'false', None: 'null'}[value] }`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _row(name: str, field: FieldInfo, words: str) -> Row:
    annotated: Any = Annotated[field.annotation, *field.metadata, None]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    kind, bounds = _typed(adapter.json_schema())
    if kind == "text" and (names := _names(adapter)):
        kind = ", ".join(f"`{name}`" for name in names)
    return Row(name, kind, bounds, _default(field.default), words or _WORDS.get(name, ""))


def _doc(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").split("\n")[0]


def _family(name: str, union: EntryUnion[Any]) -> Iterator[Row]:
    """The entries of all members, each with the members that take it."""
    members = union.members
    own = {option: [m for m in members if option in members[m].model_fields] for option in union.fields()}
    own = {option: takers for option, takers in own.items() if option != union.tag}
    tag = Row(f"{name}.{union.tag}", ", ".join(f"`{member}`" for member in members), "", f"`{next(iter(members))}`", "")
    yield replace(tag, words=_WORDS[tag.name])
    for option, takers in own.items():
        model = members[takers[0]]
        for row in _entry(f"{name}.{option}", model.model_fields[option], comments(model)[option]):
            if len(takers) < len(members) and row.name.endswith(option):
                row = replace(row, words=f"{row.words} ({', '.join(takers)})")
            yield row


def _entry(name: str, field: FieldInfo, words: str) -> Iterator[Row]:
    kind = field.annotation
    validators = [getattr(part, "func", None) for part in field.metadata]
    union = next((part for part in validators if isinstance(part, EntryUnion)), None)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield Row(name, "group", "", "", _doc(kind))
        yield from _family(name, union) if union else entries(kind, f"{name}.")
    else:
        groups = [part for part in get_args(kind) if isinstance(part, type) and issubclass(part, BaseModel)]
        listed = get_origin(kind) is tuple
        yield _row(name, field, _doc(groups[0]) if groups and not listed else words)
        for group in groups[:1]:
            yield from entries(group, f"{name}[]." if listed else f"{name}.")


def entries(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Row]:
    """Every entry of a recipe, groups before what they hold."""
    words = comments(model)
    for name, field in model.model_fields.items():
        yield from _entry(f"{prefix}{name}", field, words.get(name, ""))


def kind_of(name: str) -> str:
    """identity, numerics or execution."""
    first = name.split(".")[0]
    return "identity" if first in IDENTITY else first


def _table(rows: list[Row]) -> list[str]:
    lines = ["| entry | type, range | default | what it is |", "|---|---|---|---|"]
    for row in rows:
        kind = ", ".join(part for part in (row.type, row.range) if part)
        cells = (f"`{row.name}`", kind, row.default, row.words)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def tables() -> str:
    """The page's tables: a heading for each kind, a table for each group at the top of a recipe."""
    groups: dict[str, list[Row]] = {}
    for row in entries():
        groups.setdefault(row.name.split(".")[0], []).append(row)
    lines: list[str] = []
    for kind, meaning in KINDS.items():
        lines += ["", f"## {kind.capitalize()}: {meaning}", ""]
        for name, rows in groups.items():
            if kind_of(name) == kind:
                lines += [f"### {name}", "", *([rows.pop(0).words, ""] if len(rows) > 1 else []), *_table(rows)]
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls it with every page."""
    return markdown.replace(MARK, tables()) if MARK in markdown else markdown


if __name__ == "__main__":
    print(tables())
