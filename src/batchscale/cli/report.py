"""batchscale report: one self-contained HTML page of a study, a run, or results of benchmarks.

Of several folders of one recipe: the critical minibatch, measured in two or three ways, on one page,
critical-minibatch.html in the first of them. They are folders of study steps-to-target, study branch and measure
noise-scale, and of runs with execution.noise_scale_steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, folder_path, print_json
from batchscale.errors import UsageError
from batchscale.records.command import this_command
from batchscale.words import shown


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report", help="write report.html: a study, a run or benchmarks on one page", description=__doc__
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="folder of a study, a run, or results of bench --json"
    )
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR", help="of several folders: where their page goes (default: the first)"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from batchscale.report.page import write, write_together

    if len(options.folders) > 1:
        written = write_together(options.folders, this_command(options.typed), options.out)
    elif options.out is not None:
        raise UsageError(f"--out={options.out}: is for several folders; the page of one goes into it: leave --out out")
    else:
        written = write(options.folders[0])
    skipped = [{"name": name, "reason": reason} for name, reason in written.skipped]
    if options.json:
        document = {"report": str(written.path), "kind": written.kind, "runs": written.runs, "skipped": skipped}
        print_json(document | written.result | ({"answer": written.answer} if written.answer else {}))
        return 0
    for one in skipped:
        print(shown(f"skipped {one['name']}: {one['reason']}"))
    if written.answer:
        print(shown(written.answer))
    print(shown(str(written.path)))
    return 0
