"""batchscale study: many runs, one answer. The studies come from their table, the flags from the fields they ask."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import add_common, add_data, folder_path, positive
from batchscale.cli.study.flags import add_flags, question_from
from batchscale.cli.study.order import answer, print_answer
from batchscale.study.studies import STUDIES, question_of

_ABOUT = """\
Many runs from one recipe, into one folder. A study that was stopped, or killed, goes on when the same command
is given again; finished runs are never repeated. OUT/table.csv holds one row a run.
"""


def add(commands: Any) -> None:
    """Add the command with its studies."""
    parser = commands.add_parser(
        "study",
        help="many runs, one answer",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True, parser_class=type(parser))
    for kind in STUDIES:
        if question_of(kind).of_recipe is None:
            _add_study(studies, kind)


def _add_study(studies: Any, kind: str) -> None:
    """A study's parser: the options that all have, and the flags of its question."""
    question = question_of(kind)
    parser: argparse.ArgumentParser = studies.add_parser(
        kind,
        help=question.summary,
        description=question.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = "a shipped recipe's name, or a YAML file"
    if question.of_runs:
        parser.add_argument("recipe", metavar="RECIPE|RUN", help=f"{sources}; or the folder of a run")
    else:
        parser.add_argument("recipe", metavar="RECIPE", help=sources)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry, in all runs")
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR", help="the study's folder (default runs/RECIPE-STUDY-TIME)"
    )
    add_flags(parser, question)
    parser.add_argument(
        "--jobs", type=positive, metavar="J", help="runs at once (default 1; here, where there are GPUs, one on each)"
    )
    parser.add_argument(
        "--launcher", choices=("local", "slurm"), default="local", help="where runs go (slurm: through submitit)"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of sbatch for every run, such as partition=gpu, time=8:00:00, ntasks-per-node=4; repeatable",
    )
    add_data(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study, print its answer.

    Returns:
        1 where a run failed, else 0.
    """
    question = question_from(options, question_of(options.study))
    answered = answer(options, options.study, question)
    return print_answer(options, answered)
