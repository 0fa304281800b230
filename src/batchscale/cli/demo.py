"""batchscale demo: large minibatches fail naively and succeed by the rules."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, default_folder, folder_path, positive, print_json
from batchscale.system.launcher import check_alone
from batchscale.words import shown


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo", help="watch a large minibatch fail naively and succeed by the rules (about a minute)"
    )
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR", help="folder of runs and figure (default runs/demo-TIME)"
    )
    parser.add_argument("--seeds", type=positive, default=3, metavar="S", help="seeds of each way (default 3)")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, print a table, draw the figure."""
    from batchscale.report.curves import error_curves
    from batchscale.report.draw.file import write_figures
    from batchscale.study.demo.study import run_demo

    check_alone("demo")
    out: Path = options.out or default_folder(options, "demo")
    start = time.monotonic()
    found = run_demo(out, options.seeds, lambda line: print(line, file=sys.stderr, flush=True))
    groups = [
        (
            f"{way['about']} (kn = {way['minibatch']})",
            [Path(r["folder"]) for r in found["rows"] if r["name"] == way["name"]],
        )
        for way in found["ways"]
    ]
    figures = write_figures(
        [error_curves(groups, "digits-cnn: same epochs, small and large minibatch")], "", out / "demo"
    )
    found["figures"] = [str(f) for f in figures]
    found["seconds"] = round(time.monotonic() - start, 1)
    options.keeps = str(out)
    if options.json:
        print_json(found)
        return 0
    print(f"\n{'':<56}{'kn':>6}{'lr':>8}{'test error, mean':>18}   each seed")
    for way in found["ways"]:
        each = "  ".join("-" if e is None else f"{e:.2f}" for e in way["errors"])
        mean = "-" if way["mean_error_percent"] is None else f"{way['mean_error_percent']:.2f} %"
        print(f"{way['about']:<56}{way['minibatch']:>6}{way['lr']:>8.4g}{mean:>18}   {each}")
    print(
        "\nThe same net, data and epochs. Leaving the lr unscaled is what breaks; scaling it with kn mends it."
        "\nOn a problem this small, at this lr, warmup makes no clear difference; docs/log.md says where it does."
    )
    places = f"figure: {', '.join(found['figures'])}; runs below {out}"
    print(f"\n{found['seconds']:.0f} s; {shown(places)}")
    return 0
