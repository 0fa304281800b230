"""batchscale study warmup: none, constant and gradual warmup at a large minibatch."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import data_folder, positive
from batchscale.cli.study.options import add_study, check_out, finish, open_study, recipe_name
from batchscale.cli.study.values import positive_number
from batchscale.recipe import load_recipe

_ABOUT = """\
Train RECIPE at its reference minibatch, and at a large one with each kind of warmup, a few seeds each
(Goyal et al. 2017, figure 2).

  batchscale study warmup digits-cnn --minibatch 1024 --seeds 3
"""


def add(studies: Any) -> None:
    """Add the study."""
    parser = add_study(studies, "warmup", "kinds of warmup at a large minibatch", _ABOUT, seeds=3)
    parser.add_argument("--minibatch", type=positive, required=True, metavar="KN", help="the large minibatch")
    parser.add_argument(
        "--kinds", default="none,constant,gradual", metavar="LIST", help="of warmup (default none,constant,gradual)"
    )
    parser.add_argument(
        "--warmup-epochs", type=positive_number, metavar="E", help="how long (default: the recipe's warmup)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study, print the table."""
    recipe = load_recipe(options.recipe, options.overrides)
    from batchscale.study.warmup.study import Question, cells_of, check_asked, findings_of, parse_kinds

    kinds = parse_kinds(options.kinds)
    check_asked(recipe, options.minibatch)
    check_out(options, "warmup", recipe)
    from batchscale.build.inputs import load_data

    training_images = len(load_data(recipe, data_folder(options)).train)
    question = Question(
        recipe_name(options), recipe, options.minibatch, kinds, options.seeds, training_images, options.warmup_epochs
    )
    cells = cells_of(question)
    asked = {"minibatch": options.minibatch, "kinds": list(kinds), "warmup_epochs": options.warmup_epochs}
    with open_study(options, "warmup", recipe, asked) as study:
        outcomes = study.run(cells)
        findings = findings_of(question, outcomes, study.command)
        return finish(options, study, findings, outcomes, findings.result)
