"""batchscale recipes: list the shipped recipes, show one."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import add_common, print_json
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe, shipped_names, shipped_text


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("recipes", help="list the shipped recipes, or show one", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument("name", nargs="?", help="a shipped recipe's name")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list, or one file."""
    if options.action == "show" and not options.name:
        raise UsageError("recipes show: needs a NAME; `batchscale recipes` lists them")
    if options.action == "show":
        text = shipped_text(options.name)
        if options.json:
            print_json(
                {"name": options.name, "text": text, "recipe": load_recipe(options.name).model_dump(mode="json")}
            )
        else:
            print(text, end="")
        return 0
    names = shipped_names()
    if options.json:
        print_json({"recipes": [{"name": n, "about": _about(n)} for n in names]})
    else:
        width = max(map(len, names))
        for name in names:
            print(f"{name:<{width}}  {_about(name)}")
    return 0


def _about(name: str) -> str:
    """The first line of a recipe's header."""
    return shipped_text(name).splitlines()[0].lstrip("# ").rstrip()
