"""batchscale study: many runs, one answer; one thin file per study."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.study import grid, minibatch_error, scaling, steps_to_target, warmup

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
    for study in (grid, minibatch_error, warmup, steps_to_target, scaling):
        study.add(studies)
