"""batchscale study grid: any ablation: ways x seeds."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import positive
from batchscale.cli.study.options import add_study, finish, open_study, recipe_name
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.words import counted

if TYPE_CHECKING:
    from batchscale.study.runner.cell import Change

_ABOUT = """\
Train RECIPE in several ways, a few seeds each, and compare. The first way is the reference.

  batchscale study grid digits-cnn --seeds 3 --out runs/lr \\
      --way 'as shipped:' \\
      --way 'lr unscaled: minibatch.workers=32 learning_rate.scaling=none' \\
      --way 'by the rules: minibatch.workers=32' \\
      --way 'lars: optimizer={name: lars, weight_decay: 1.0e-4} learning_rate.reference=1'

Overrides stand apart by blanks; within braces, brackets and quotes a blank belongs to the value.
"""

_TOKENS = re.compile(r"""'[^']*'|"[^"]*"|\s+|.""", re.DOTALL)
_PAIRS = {"{": "}", "[": "]"}


def add(studies: Any) -> None:
    """Add the study."""
    parser = add_study(studies, "grid", "several ways to train, several seeds each", _ABOUT, seeds=3)
    parser.add_argument(
        "--way",
        action="append",
        default=[],
        metavar="'NAME: key=value ...'",
        help="a way to train: its name and its overrides; once for each way",
    )
    parser.add_argument("--processes", type=positive, default=1, metavar="W", help="local processes of a run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the grid, print the comparison."""
    from batchscale.study.runner.cell import cells

    changes = _changes(options.way)
    recipe = load_recipe(options.recipe, options.overrides)
    wanted = cells(options.recipe, options.overrides, changes, options.seeds, options.processes)
    from batchscale.study.grid.findings import findings_of, summaries

    asked = {"ways": {change.name: list(change.overrides) for change in changes}}
    with open_study(options, "grid", recipe, asked) as study:
        outcomes = study.run(wanted)
        question = (
            f"{counted(len(changes), 'way')} to train {recipe_name(options)}: {counted(options.seeds, 'seed')} each, "
            f"{counted(recipe.epochs, 'epoch', 'g')} where a way does not say otherwise."
        )
        findings = findings_of(outcomes, recipe_name(options), question, study.command)
        return finish(options, study, findings, outcomes, {"ways": summaries(outcomes)})


def _words(text: str) -> tuple[str, ...]:
    """Words between blanks outside braces, brackets and quotes; one that is no key=value where one does not close."""
    words, closing = [""], [""]
    for token in _TOKENS.findall(text):
        if token.isspace() and len(closing) == 1:
            words.append("")
            continue
        if token in ("'", '"') or (token in _PAIRS.values() and closing.pop() != token):
            return ("",)
        closing += _PAIRS.get(token, "")
        words[-1] += token
    return tuple(_unquoted(word) for word in words if word) if len(closing) == 1 else ("",)


def _unquoted(word: str) -> str:
    """A word without the quotes around all of it; others are the value's."""
    quote = word[0]
    return word[1:-1] if quote in "'\"" and word.count(quote) == 2 and word.endswith(quote) else word


def _changes(ways: list[str]) -> list[Change]:
    """'NAME: key=value key=value' each; one without overrides where none is given.

    Raises:
        UsageError: no name, a name twice, or a word that is no key=value.
    """
    from batchscale.study.runner.cell import Change

    made: dict[str, Change] = {}
    for way in ways or ["as given:"]:
        name, colon, words = way.partition(":")
        name, overrides = name.strip(), _words(words)
        if not colon or not name or not all("=" in word for word in overrides):
            raise UsageError(
                f"--way {way!r}: must be 'NAME: key=value key=value', every brace and quote closed, such as "
                f"'no warmup: learning_rate.warmup.kind=none'"
            )
        if name in made:
            raise UsageError(f"--way {way!r}: the name {name!r} is taken; give each way a name of its own")
        made[name] = Change(name, overrides)
    return list(made.values())
