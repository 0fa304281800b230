"""batchscale recipes: list the shipped recipes, show one."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import add_common, print_json
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe, shipped_names, shipped_text
from batchscale.records.findings import Table
from batchscale.records.text import as_text


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("recipes", help="list the shipped recipes, or show one", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="NAME", help="the recipe to show (show NAME is the same)")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list, or one file."""
    name = _named(options.words)
    if name is not None:
        text = shipped_text(name)
        if options.json:
            print_json({"name": name, "text": text, "recipe": load_recipe(name).model_dump(mode="json")})
        else:
            print(text, end="")
        return 0
    names = shipped_names()
    if options.json:
        print_json({"recipes": [{"name": n, "about": _about(n)} for n in names]})
    else:
        rows = tuple((name, _about(name)) for name in names)
        print(as_text(Table(title="", columns=("name", "about"), rows=rows), columns=False))
    return 0


def _named(words: list[str]) -> str | None:
    """The recipe that [show] NAME means; None for the list."""
    match words:
        case [] | ["list"]:
            return None
        case ["show"]:
            raise UsageError("recipes show: needs a NAME; `batchscale recipes` lists them")
        case ["show", name] | [name]:
            return name
        case ["list", *_]:
            raise UsageError(f"recipes {' '.join(words)}: `recipes list` takes no name; see `recipes show {words[1]}`")
    raise UsageError(f"recipes {' '.join(words)}: must be one NAME; give `batchscale recipes NAME` for each")


def _about(name: str) -> str:
    """The first line of a recipe's header."""
    return shipped_text(name).splitlines()[0].lstrip("# ").rstrip()
