"""batchscale compare: where two runs part."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, print_json
from batchscale.words import shown


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("compare", help="name the first step and tensor in which two runs differ")
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="a run's folder")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what differs; 0 where nothing does, 1 where something does or nothing could be compared."""
    from batchscale.run.compare import compare

    comparison = compare(*options.runs)
    if options.json:
        print_json(comparison)
    else:
        step, common = comparison["first_differing_step"], comparison["common_steps"]
        where = "no common step differs" if step is None else f"the first differing step is {step}"
        steps = f"{where} (of {common} common ones, compared by {comparison['compared_by']})"
        print(steps if common else "no step is recorded in both runs")
        for number, tensor in comparison["checkpoints"].items():
            print(f"checkpoint of step {number}: {'equal' if tensor is None else f'first differing tensor: {tensor}'}")
        if comparison["final_weights"] is not None:
            final = comparison["final_weights"]
            print(f"final weights: {final if final == 'equal' else f'first differing tensor: {final}'}")
        if comparison["data"] not in (None, "equal"):
            print(f"other data: {shown(comparison['data'])}")
    return 0 if comparison["equal"] else 1
