"""Lists of minibatches and rules of the lr as words, and the recipe that a minibatch and a rule make.

A minibatch kn keeps the recipe's n: k = kn / n; below n it is one worker of kn images. A rule is a scaling, alone
(no warmup) or with a warmup: ``none``, ``sqrt``, ``linear``, ``linear+gradual``; with ``+regime`` the run has the steps
of the reference minibatch in place of its epochs.

Source: Goyal et al. 2017, sections 2.1, 2.2 and figure 1; Hoffer et al. 2017, section 5 (regime).
"""

from __future__ import annotations

import itertools
import re
import typing
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from batchscale.build.constants import run_constants
from batchscale.build.examples import examples_of
from batchscale.build.planning import plan_of, schedule_of
from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import recipe_from
from batchscale.recipe.schema import Recipe, ScalingName, WarmupName
from batchscale.study.question import read_by
from batchscale.words import counted

_EXAMPLES = "64,128,256 or 64,128,...,16384 or 2^6..2^14"
_SCALINGS, _WARMUPS = typing.get_args(ScalingName), typing.get_args(WarmupName)
_REGIME = "regime"


@dataclass(frozen=True)
class Rule:
    """How the lr follows the minibatch: a scaling and a kind of warmup; for the same epochs or the same steps."""

    scaling: str
    warmup: str
    regime: bool = False

    @property
    def name(self) -> str:
        """As it is written: ``linear``, ``linear+gradual``, ``sqrt+regime``."""
        more = [] if self.warmup == "none" else [self.warmup]
        return "+".join([self.scaling, *more, *([_REGIME] if self.regime else [])])


def rule_words(rule: str) -> str:
    """A rule by its name, as in a sentence: ``rule none`` alone would read as a word."""
    return f"rule {rule} (lr unscaled)" if rule.partition("+")[0] == "none" else f"rule {rule}"


def rule_of(recipe: Recipe) -> Rule:
    """The recipe's own rule."""
    return Rule(recipe.learning_rate.scaling, recipe.learning_rate.warmup.kind)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from words such as ``none,sqrt,linear+gradual``.

    Raises:
        UsageError: an unknown word, a rule given twice, or none.
    """
    rules = tuple(_rule(word.strip()) for word in text.split(","))
    if len(set(rules)) < len(rules):
        raise UsageError(f"--rules={text}: a rule stands twice; name each once")
    return rules


def _rule(word: str) -> Rule:
    scaling, *more = word.split("+")
    regime = more[-1:] == [_REGIME]
    warmups = more[:-1] if regime else more
    if scaling not in _SCALINGS or len(warmups) > 1 or not set(warmups) <= set(_WARMUPS):
        raise UsageError(
            f"--rules: {word!r} is no rule: a scaling ({', '.join(_SCALINGS)}), alone or with a warmup "
            f"({', '.join(_WARMUPS)}), at its end +{_REGIME} for the same steps in place of the same epochs; write for "
            f"example none,linear,linear+gradual"
        )
    return Rule(scaling, warmups[0] if warmups else "none", regime)


def parse_minibatches(text: str) -> tuple[int, ...]:
    """Minibatches from ``64,128,256``, ``64,128,...,16384`` (the ratio goes on) or ``2^6..2^14`` (powers of two).

    Raises:
        UsageError: an empty list, not whole numbers, or not rising.
    """
    if not text.strip():
        raise UsageError(f"--minibatches: the list is empty; write for example {_EXAMPLES}")
    ends = [_number(word, text) for word in text.split("..")] if re.fullmatch(r"[^.,]+\.\.[^.,]+", text) else []
    minibatches = _powers(ends[0], ends[1], text) if ends else _listed(text)
    for smaller, larger in itertools.pairwise(minibatches):
        if larger <= smaller:
            raise UsageError(
                f"--minibatches={text}: {larger} after {smaller}: the list must rise, each minibatch once; "
                f"write {','.join(map(str, sorted(set(minibatches))))}"
            )
    return tuple(minibatches)


def _number(word: str, text: str) -> int:
    word = word.strip()
    power = re.fullmatch(r"2\^([0-9]{1,2})", word)
    value = 2 ** int(power[1]) if power else int(word) if re.fullmatch(r"[0-9]{1,12}", word) else 0
    if value < 1:
        raise UsageError(
            f"--minibatches={text}: {word!r} must be a whole number of at least 1; write for example {_EXAMPLES}"
        )
    return value


def _powers(first: int, last: int, text: str) -> list[int]:
    if first & (first - 1) or last & (last - 1) or last < first:
        raise UsageError(
            f"--minibatches={text}: A..B stands for the powers of two from A up to B; write for example 2^6..2^14"
        )
    return [2**power for power in range(first.bit_length() - 1, last.bit_length())]


def _listed(text: str) -> list[int]:
    words = text.split(",")
    if words.count("...") == 0:
        return [_number(word, text) for word in words]
    dots = words.index("...")
    first, last = [_number(word, text) for word in words[:dots]], [_number(word, text) for word in words[dots + 1 :]]
    if len(first) < 2 or len(last) != 1 or first[-1] <= first[-2]:
        raise UsageError(
            f"--minibatches={text}: '...' goes on by the ratio of the two rising numbers before it, up to the one "
            f"after it; write for example 64,128,...,16384"
        )
    ratio, minibatches = Fraction(first[-1], first[-2]), list(first)
    following = minibatches[-1] * ratio
    while following.denominator == 1 and following <= last[0]:  # a few dozen terms: every one divides by more
        minibatches.append(int(following))
        following *= ratio
    if minibatches[-1] != last[0]:
        ends = f"{minibatches[-1]} or {following}" if following.denominator == 1 else f"{minibatches[-1]}"
        raise UsageError(
            f"--minibatches={text}: going on by {ratio} from {first[-1]} never gives {last[0]}; "
            f"end at {ends}, or write the numbers out"
        )
    return minibatches


def _rules(value: object) -> object:
    """Words, or the names of a study.json, as rules."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return parse_rules(value) if isinstance(value, str) else value


Minibatches = Annotated[tuple[int, ...], read_by(parse_minibatches)]
"""A field of a question: minibatches, rising."""

Rules = Annotated[
    tuple[Rule, ...], BeforeValidator(_rules), PlainSerializer(lambda rules: [rule.name for rule in rules])
]
"""A field of a question: rules of the lr, each once."""


def check_fixed(recipe: Recipe) -> None:
    """Raise where the recipe's minibatch grows: a study that varies the minibatch needs one that stays.

    Raises:
        RecipeError: minibatch.growth is given.
    """
    if recipe.minibatch.growth.kind != "none":
        raise RecipeError(
            f"minibatch.growth.kind={recipe.minibatch.growth.kind}: this study sets one minibatch for the whole run; "
            f"use minibatch.growth.kind=none, or another recipe"
        )


def workers_of(minibatch: int, per_worker: int, flag: str = "--minibatches") -> tuple[int, int]:
    """(k, n) of a minibatch kn: the recipe's n, or one worker of kn images where kn is below it.

    Raises:
        UsageError: kn is no multiple of n.
    """
    if minibatch < per_worker:
        return 1, minibatch
    if minibatch % per_worker:
        below = minibatch - minibatch % per_worker
        raise UsageError(
            f"{flag}: {minibatch} is no multiple of minibatch.per_worker={per_worker} (whole workers of n images); "
            f"use {below} or {below + per_worker}, or another minibatch.per_worker"
        )
    return minibatch // per_worker, per_worker


def check_workers(recipe: Recipe, minibatches: tuple[int, ...]) -> None:
    """Raise where a recipe cannot be trained at every one of these minibatches, whatever the data.

    Raises:
        RecipeError: its minibatch grows.
        UsageError: one is no multiple of n.
    """
    check_fixed(recipe)
    for minibatch in minibatches:
        workers_of(minibatch, recipe.minibatch.per_worker)


def check_fits(minibatches: tuple[int, ...], training_images: int, recipe: Recipe, flag: str = "--minibatches") -> None:
    """Raise where a minibatch is larger than the training set.

    Raises:
        UsageError: names the largest that fits.
    """
    if minibatches[-1] > training_images:
        fitting = [m for m in minibatches if m <= training_images]
        way = (
            f"the largest given one that fits is {fitting[-1]}; leave out those beyond it"
            if fitting
            else (f"none given fits; give at most {training_images}")
        )
        examples = examples_of(recipe)
        raise UsageError(f"{flag}: {minibatches[-1]} exceeds the {training_images} training {examples}; {way}")


def recipe_at(
    recipe: Recipe, workers: int, per_worker: int, rule: Rule, warmup_epochs: float | None, training_images: int
) -> Recipe:
    """The recipe at another minibatch by a rule; of rules that give one lr at every step, the simplest.

    Raises:
        UsageError: the rule warms up and no duration is known, the parts do not fit, or the rule cannot hold here.
    """
    content = recipe.model_dump(mode="json")
    content["minibatch"] |= {"workers": workers, "per_worker": per_worker}
    content["learning_rate"] |= {"scaling": rule.scaling, "warmup": _warmup(recipe, rule, warmup_epochs)}
    ruled = _logged_often(recipe_from(content), training_images)
    _check_warmup(ruled, warmup_epochs is not None, training_images)
    run_constants(ruled, plan_of(ruled, training_images))
    for scaling in dict.fromkeys(("linear", rule.scaling)):
        simple = recipe_from(
            ruled.model_dump(mode="json")
            | {"learning_rate": content["learning_rate"] | {"scaling": scaling, "warmup": {"kind": "none"}}}
        )
        if _rates(simple, training_images) == _rates(ruled, training_images):
            return simple
    return ruled


def _warmup(recipe: Recipe, rule: Rule, epochs: float | None) -> dict[str, Any]:
    if rule.warmup == "none":
        return {"kind": "none"}
    entry = recipe.learning_rate.warmup
    if epochs is None and entry.epochs is None and entry.steps is None:
        raise UsageError(
            f"--warmup-epochs: missing; {rule.name} warms up, and the recipe has no duration for it; "
            f"give --warmup-epochs 5 or so"
        )
    if epochs is not None:
        return {"kind": rule.warmup, "epochs": epochs, "start": entry.start}
    return {"kind": rule.warmup, "epochs": entry.epochs, "steps": entry.steps, "start": entry.start}


def _check_warmup(recipe: Recipe, by_flag: bool, training_images: int) -> None:
    """Raise where the warmup is longer than the run: the lr would never be the rule's."""
    warmup, steps = recipe.learning_rate.warmup, plan_of(recipe, training_images).total_steps
    if (warmup.epochs or 0) <= recipe.epochs and (warmup.steps or 0) <= steps:
        return
    unit, value = ("steps", warmup.steps) if warmup.steps is not None else ("epochs", warmup.epochs)
    setting = "--warmup-epochs" if by_flag else f"learning_rate.warmup.{unit}"
    kn = recipe.minibatch.workers * recipe.minibatch.per_worker
    raise UsageError(
        f"{setting}={value:g}: must not be longer than the run, which at kn = {kn} is "
        f"{counted(recipe.epochs, 'epoch', 'g')} of together {counted(steps, 'step')}; "
        f"give --warmup-epochs of at most {recipe.epochs:g}"
    )


def _rates(recipe: Recipe, training_images: int) -> list[float]:
    plan = plan_of(recipe, training_images)
    schedule = schedule_of(recipe, plan)
    return [schedule(step) for step in range(plan.total_steps)]


def _logged_often(recipe: Recipe, training_images: int) -> Recipe:
    """A line of metrics four times an epoch at least, for curves against epochs; execution is no part of identity."""
    steps = plan_of(recipe, training_images).phases[0].steps_per_epoch
    log_steps = max(min(recipe.execution.log_steps, int(steps / 4)), 1)
    return recipe.model_copy(update={"execution": recipe.execution.model_copy(update={"log_steps": log_steps})})
