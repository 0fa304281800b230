"""Ways to train x seeds: any ablation. Its runs are a demonstration's, too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, PlainSerializer

from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.study.measuring import MeasuredQuestion, measured_at_end, measures_of
from batchscale.study.question import Case, flag
from batchscale.study.runner.cell import Cell

_TOKENS = re.compile(r"""'[^']*'|"[^"]*"|\s+|.""", re.DOTALL)
_PAIRS = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class Variant:
    """One way to train: its name, and the overrides that make it."""

    name: str
    overrides: tuple[str, ...] = ()


def parse_ways(ways: Sequence[str]) -> tuple[Variant, ...]:
    """'NAME: key=value key=value' each.

    Raises:
        UsageError: no name, a name twice, or a word that is no key=value.
    """
    variants: dict[str, Variant] = {}
    for way in ways:
        name, colon, words = way.partition(":")
        name, overrides = name.strip(), _words(words)
        if not colon or not name or not all("=" in word for word in overrides):
            raise UsageError(
                f"--way {way!r}: must be 'NAME: key=value key=value', every brace and quote closed, such as "
                f"'no warmup: learning_rate.warmup.kind=none'"
            )
        if name in variants:
            raise UsageError(f"--way {way!r}: the name {name!r} is taken; give each way a name of its own")
        variants[name] = Variant(name, overrides)
    return tuple(variants.values())


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


def _read(value: Any) -> Any:
    """Words of the command line, or the mapping of a study.json, as variants."""
    if isinstance(value, Mapping):
        return tuple(Variant(name, tuple(overrides)) for name, overrides in value.items())
    return parse_ways(value) if value and all(isinstance(way, str) for way in value) else value


class Question(MeasuredQuestion):
    """Which of several ways to train is best?"""

    summary: ClassVar = "several ways to train, several seeds each"
    about: ClassVar = """\
Train RECIPE in several ways, a few seeds each, and compare. The first way is the reference.

  batchscale study grid digits-cnn --seeds 3 --out runs/lr \\
      --way 'as shipped:' \\
      --way 'lr unscaled: minibatch.workers=32 learning_rate.scaling=none' \\
      --way 'by the rules: minibatch.workers=32' \\
      --way 'lars: optimizer={name: lars, weight_decay: 1.0e-4} learning_rate.reference=1'

Overrides stand apart by blanks; within braces, brackets and quotes a blank belongs to the value.
"""

    ways: Annotated[
        tuple[Variant, ...],
        BeforeValidator(_read),
        PlainSerializer(lambda ways: {way.name: list(way.overrides) for way in ways}),
    ] = flag(
        "a way to train: its name and its overrides; once for each way",
        "'NAME: key=value ...'",
        default=("as given:",),
        repeated="--way",
    )
    processes: int = flag("local processes of a run", "W", default=1, ge=1)


def cells(case: Case[Question]) -> list[Cell]:
    """Ways x seeds.

    Raises:
        RecipeError: an entry that is unknown or out of range.
    """
    return variant_cells(case, case.question.ways, case.question.processes)


def variant_cells(case: Case[Any], variants: Sequence[Variant], processes: int = 1) -> list[Cell]:
    """Variants x seeds, one label "way" each; seeds are the variant's own, and the next ones.

    Args:
        case: of a question with seeds; a variant's overrides come after those of all runs.
        variants: of the recipe.
        processes: W.

    Raises:
        RecipeError: an entry that is unknown or out of range.
    """
    return [
        Cell({"way": variant.name, "seed": seed}, measured_at_end(recipe, measures_of(case)), processes)
        for variant in variants
        for seed, recipe in case.question.seeded(load_recipe(case.source, [*case.overrides, *variant.overrides]))
    ]
