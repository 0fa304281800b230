"""batchscale report: one self-contained HTML page of a study, a run, or results of benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, print_json
from batchscale.words import shown


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report", help="write report.html: a study, a run or benchmarks on one page", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a study, a run, or results of bench --json")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from batchscale.report.page import write

    written = write(options.folder)
    skipped = [{"name": name, "reason": reason} for name, reason in written.skipped]
    if options.json:
        print_json({"report": str(written.path), "kind": written.kind, "runs": written.runs, "skipped": skipped})
        return 0
    for one in skipped:
        print(shown(f"skipped {one['name']}: {one['reason']}"))
    print(shown(str(written.path)))
    return 0
