"""batchscale study minibatch-error: how far the minibatch may grow before the error does."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import data_folder, positive
from batchscale.cli.study.options import add_study, check_out, finish, open_study, recipe_name
from batchscale.cli.study.values import not_negative_number, positive_number
from batchscale.recipe import load_recipe

_ABOUT = """\
Train RECIPE at several minibatches for the same epochs, a few seeds each, and find the elbow: the largest minibatch
whose mean error is within --tolerance points of the reference's (Goyal et al. 2017, figure 1).

  batchscale study minibatch-error digits-cnn --minibatches 32,64,...,1024 --rules none,sqrt,linear+gradual

A minibatch kn keeps the recipe's n images a worker: k = kn / n workers. Below n it is one worker of kn images.
A rule is a scaling of the lr (none, sqrt, linear), alone or with a warmup (linear+gradual, linear+constant).
"""


def add(studies: Any) -> None:
    """Add the study."""
    parser = add_study(studies, "minibatch-error", "error against minibatch, and its elbow", _ABOUT, seeds=3)
    parser.add_argument(
        "--minibatches", required=True, metavar="LIST", help="64,128,256 or 64,128,...,16384 or 2^6..2^14, rising"
    )
    parser.add_argument("--rules", metavar="LIST", help="rules of the lr to compare (default: the recipe's own)")
    parser.add_argument(
        "--reference",
        type=positive,
        metavar="KN",
        help="the minibatch to compare with (default: learning_rate.reference_minibatch, or the smallest)",
    )
    parser.add_argument(
        "--tolerance", type=not_negative_number, default=0.5, metavar="POINTS", help="of error (default 0.5)"
    )
    parser.add_argument(
        "--statistic",
        choices=("final", "median5"),
        default="final",
        help="error of a run: of its last evaluation (default), or the median of its last five",
    )
    parser.add_argument(
        "--warmup-epochs", type=positive_number, metavar="E", help="of rules that warm up (default: the recipe's)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study, print the elbow."""
    recipe = load_recipe(options.recipe, options.overrides)
    from batchscale.study.rules import parse_minibatches, parse_rules, rule_of

    minibatches = parse_minibatches(options.minibatches)
    rules = (rule_of(recipe),) if options.rules is None else parse_rules(options.rules)
    from batchscale.study.minibatch_error.study import Question, cells_of, check_asked, findings_of

    check_asked(recipe, minibatches, options.reference)
    check_out(options, "minibatch-error", recipe)
    from batchscale.build.inputs import load_data

    question = Question(
        recipe_name(options), recipe, minibatches, rules, options.seeds,
        len(load_data(recipe, data_folder(options)).train),
        options.reference, options.tolerance, options.statistic, options.warmup_epochs,
    )  # fmt: skip
    cells = cells_of(question)
    asked = {
        "minibatches": list(minibatches),
        "rules": [rule.name for rule in rules],
        "reference": question.at(),
        "tolerance": options.tolerance,
        "statistic": options.statistic,
        "warmup_epochs": options.warmup_epochs,
    }
    with open_study(options, "minibatch-error", recipe, asked) as study:
        outcomes = study.run(cells)
        findings = findings_of(question, outcomes, study.command)
        return finish(options, study, findings, outcomes, findings.result)
