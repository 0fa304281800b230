"""batchscale study steps-to-target: how many steps to a goal, at every minibatch (Shallue et al. 2018)."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import data_folder, positive
from batchscale.cli.study.options import add_study, check_out, finish, open_study, recipe_name
from batchscale.errors import UsageError
from batchscale.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from batchscale.study.steps_to_target.search import Search
    from batchscale.study.steps_to_target.trials import Goal

_ABOUT = """\
At every minibatch, search for the settings that reach the goal in the fewest steps, on held-out training images:

  batchscale study steps-to-target digits-cnn --goal 'error<5' --minibatches 2^3..2^10 --trials 32 --jobs 2

Searched, quasi-randomly and log-uniformly: lr / (1 - momentum), momentum, weight decay, and the share of the lr that
is left at the end of the step budget (it falls linearly; 1: it stays). There is no warmup. A trial ends where it
reaches the goal. What is found: the curve against the ideal line, the three regimes, and the critical minibatch.
"""

_RANGES = {
    "lr": ("lr / (1 - momentum), at every minibatch", "the recipe's by the square-root rule, / 32 to x 32"),
    "momentum": ("momentum", "0..0.99"),
    "weight-decay": ("weight decay", "1e-6..1e-3"),
    "final-lr": ("the share of the lr left at the end of the step budget", "0.01..1"),
}
_BOUNDS = {"lr": (1e-12, 1e12), "momentum": (0.0, 0.9999), "weight-decay": (0.0, 1e3), "final-lr": (1e-9, 1.0)}


def add(studies: Any) -> None:
    """Add the study."""
    parser = add_study(studies, "steps-to-target", "steps to a goal against the minibatch", _ABOUT, seeds=None)
    parser.add_argument("--goal", required=True, metavar="GOAL", help="'error<10' (percent) or 'loss<0.5'; quote it")
    parser.add_argument(
        "--minibatches", required=True, metavar="LIST", help="64,128,256 or 64,128,...,16384 or 2^6..2^14, rising"
    )
    parser.add_argument("--trials", type=positive, required=True, metavar="T", help="settings tried at each minibatch")
    parser.add_argument(
        "--holdout", type=positive, metavar="M", help="training images held out (default: data.holdout, else a tenth)"
    )
    parser.add_argument(
        "--evaluation-steps",
        type=positive,
        metavar="S",
        help="between evaluations (default: a hundredth of the budget)",
    )
    parser.add_argument(
        "--min-steps",
        type=positive,
        default=200,
        metavar="S",
        help="a trial's budget is the recipe's epochs, but at least so many steps (default 200)",
    )
    for name, (words, default) in _RANGES.items():
        parser.add_argument(
            f"--{name}", metavar="LOW..HIGH", help=f"range of {words}, or one number (default {default})"
        )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Search, then tell the curve."""
    from batchscale.study.rules import check_workers, parse_minibatches
    from batchscale.study.steps_to_target.trials import parse_goal

    goal, minibatches = parse_goal(options.goal), parse_minibatches(options.minibatches)
    recipe = load_recipe(options.recipe, options.overrides)
    check_workers(recipe, minibatches)
    check_out(options, "steps-to-target", None)
    search = _search(options, recipe, goal, minibatches)
    cells = search.cells()
    from batchscale.study.steps_to_target.findings import findings_of
    from batchscale.study.steps_to_target.search import check_begun

    asked = {"goal": options.goal, "minibatches": list(minibatches), "trials": options.trials}
    with open_study(options, "steps-to-target", search.recipe, asked) as study:
        check_begun(study.out / "runs", search, cells)
        outcomes = study.run(cells)
        findings, numbers = findings_of(search, outcomes, recipe_name(options), study.command)
        return finish(options, study, findings, outcomes, numbers)


def _search(options: argparse.Namespace, recipe: Recipe, goal: Goal, minibatches: tuple[int, ...]) -> Search:
    """The search of these options, on the recipe with a held-out part."""
    lr = None if options.lr is None else _range(options, "lr")
    others = [_range(options, name) for name in ("momentum", "weight-decay", "final-lr")]
    from batchscale.build.inputs import load_data
    from batchscale.study.steps_to_target.search import Search

    data, folder = recipe.data, data_folder(options)
    whole = recipe.model_copy(update={"data": data.model_copy(update={"holdout": 0, "train_images": None})})
    images = len(load_data(whole, folder).train)
    held = options.holdout or data.holdout or math.ceil((data.train_images or images) / 10)
    left = data.train_images or images - held
    if left + held > images or left < 1:
        wanted = f" beside data.train_images={data.train_images}" if data.train_images else ""
        raise UsageError(f"--holdout={held}: must leave some of the {images} training images{wanted}; lower it")
    search = Search(
        recipe.model_copy(update={"data": data.model_copy(update={"holdout": held})}),
        goal, minibatches, options.trials, left, options.min_steps, options.evaluation_steps,
        lr, *others,
    )  # fmt: skip
    if options.momentum is not None and not search.has_momentum:
        raise UsageError(
            f"--momentum={options.momentum}: optimizer.name={recipe.optimizer.name} has none; leave --momentum out"
        )
    return search


def _range(options: argparse.Namespace, name: str) -> tuple[float, float]:
    """As given, else the default."""
    from batchscale.study.steps_to_target.space import parse_range

    text = getattr(options, name.replace("-", "_"))
    return parse_range(f"--{name}", _RANGES[name][1] if text is None else text, *_BOUNDS[name])
