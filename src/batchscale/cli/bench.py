"""batchscale bench: throughput on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, add_data, data_folder, positive, print_json
from batchscale.recipe import load_recipe

_DEFAULT_RECIPE = "fashion-mnist-cnn"
_DEFAULT_OVERRIDES = ("minibatch.workers=16", "minibatch.per_worker=32")
_STEP = f"""\
Measure a training step of batchscale, fast and exact, beside its ceiling (forward, backward and update alone) and
beside the same training as other libraries' documentation writes it. All run in turn, block by block; ratios are
medians of paired rounds. Takes up to five minutes. The default is {_DEFAULT_RECIPE} with 16 workers of 32 images:

  batchscale bench step
  batchscale bench step fashion-mnist-cnn minibatch.workers=32 --processes 2 --json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("bench", help="measure throughput on this machine", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    step = kinds.add_parser(
        "step",
        help="a training step, beside its ceiling and its peers",
        description=_STEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    step.add_argument("recipe", nargs="?", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    step.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry")
    step.add_argument("--processes", type=positive, default=2, metavar="W", help="local processes (default 2)")
    add_data(step)
    add_common(step)
    step.set_defaults(run=run_step)


def run_step(options: argparse.Namespace) -> int:
    """Measure, then print the table or the document."""
    name, overrides = options.recipe, options.overrides
    if name is None or ("=" in name and not Path(name).is_file()):
        given = [] if name is None else [name]
        name, overrides = _DEFAULT_RECIPE, [*_DEFAULT_OVERRIDES, *given, *overrides]
    recipe = load_recipe(name, overrides)
    folder = data_folder(options)
    from batchscale.bench.step import bench_step
    from batchscale.bench.table import as_table

    found = bench_step(
        recipe, Path(name).stem, folder, options.processes, say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    if options.json:
        print_json(found)
    else:
        print(as_table(found))
    return 0
