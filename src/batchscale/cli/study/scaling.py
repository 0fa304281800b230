"""batchscale study scaling: strong and weak scaling on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import data_folder
from batchscale.cli.study.options import add_study, check_out, finish, open_study, recipe_name
from batchscale.cli.study.values import not_negative_number, share
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe

_ABOUT = """\
Train RECIPE on W processes of this machine, one run at a time, and tell how far more processes pay.

  strong: the recipe's minibatch whatever W
  weak:   every process keeps the recipe's workers: W times the minibatch, the lr by the recipe's rule

  batchscale study scaling digits-cnn minibatch.workers=4 epochs=5 --processes 1,2,4 --mode both

Every process gets the same threads at every W (numerics.threads, or the cores shared by the largest W).
"""


def add(studies: Any) -> None:
    """Add the study."""
    parser = add_study(studies, "scaling", "speed and error over processes, strong and weak", _ABOUT, seeds=3)
    parser.add_argument("--processes", default="1,2", metavar="LIST", help="W, such as 1,2,4,8, rising (default 1,2)")
    parser.add_argument("--mode", choices=("strong", "weak", "both"), default="both", help="default both")
    parser.add_argument(
        "--efficiency-bound", type=share, default=0.8, metavar="SHARE", help="of strong scaling (default 0.8)"
    )
    parser.add_argument(
        "--error-bound",
        type=not_negative_number,
        default=0.5,
        metavar="POINTS",
        help="of error that weak scaling may add (default 0.5)",
    )
    parser.add_argument("--compare", choices=("unet",), help="draw a published weak-scaling series beside it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study, print the tables and the rule of thumb."""
    if options.jobs != 1:
        raise UsageError(f"--jobs={options.jobs}: this study measures time, one run at a time; leave --jobs out")
    recipe = load_recipe(options.recipe, options.overrides)
    from batchscale.study.scaling.question import STRONG, WEAK, Question, cells_of, check_asked, parse_processes

    processes = parse_processes(options.processes)
    modes = (STRONG, WEAK) if options.mode == "both" else (options.mode,)
    check_asked(recipe, processes, modes)
    check_out(options, "scaling", recipe)
    from batchscale.build.inputs import load_data
    from batchscale.study.scaling.findings import findings_of

    question = Question(
        recipe_name(options), recipe, processes, modes, options.seeds,
        len(load_data(recipe, data_folder(options)).train), options.efficiency_bound, options.error_bound,
    )  # fmt: skip
    cells = cells_of(question)
    asked = {
        "processes": list(processes),
        "modes": list(modes),
        "efficiency_bound": options.efficiency_bound,
        "error_bound": options.error_bound,
    }
    with open_study(options, "scaling", recipe, asked) as study:
        outcomes = study.run(cells)
        findings = findings_of(question, outcomes, study.command, options.compare == "unet")
        return finish(options, study, findings, outcomes, findings.result)
