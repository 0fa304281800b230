"""batchscale bench frameworks: the same training in other frameworks."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, add_data, data_folder, folder_path, not_negative, positive, print_json
from batchscale.recipe import load_recipe
from batchscale.records.files import cannot_write, write_json
from batchscale.records.findings import Findings
from batchscale.records.folder import check_free_for_benchmark
from batchscale.records.text import as_text
from batchscale.system.launcher import check_alone
from batchscale.words import shown

_ENVIRONMENTS = Path("build/frameworks")
_ABOUT = """\
Compare batchscale, PyTorch DistributedDataParallel, TensorFlow MultiWorkerMirroredStrategy and JAX on one recipe: the
same net, weights, examples and constants, proved by ten losses before anything is timed. In the weak series every
process has the recipe's minibatch, in the strong one all share it; a process has one thread. All take turns; then each
trains some epochs by the recipe's rules. TensorFlow and JAX run in environments that `make frameworks` makes; one that
is missing is left out.

  batchscale bench frameworks fashion-mnist-cnn --processes 1,2,4 --data DIR --out build/fashion-frameworks
  batchscale bench frameworks nuclei-unet --processes 1,2 --epochs 4 --data DIR
"""


def add(kinds: Any) -> None:
    """Add the command."""
    parser = kinds.add_parser(
        "frameworks",
        help="the same training in other frameworks",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe with the net cnn or unet: a shipped name or a file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry")
    parser.add_argument("--processes", type=_counts, default=[1, 2], metavar="W,W", help="such as 1,2,4 (default 1,2)")
    parser.add_argument(
        "--epochs", type=not_negative, default=1, metavar="E", help="to train in every point (default 1; 0: none)"
    )
    parser.add_argument("--rounds", type=positive, default=5, metavar="R", help="turns of each (default 5)")
    parser.add_argument(
        "--environments",
        type=folder_path,
        default=_ENVIRONMENTS,
        metavar="DIR",
        help=f"what `make frameworks` has filled (default {_ENVIRONMENTS})",
    )
    parser.add_argument(
        "--out",
        type=folder_path,
        metavar="DIR",
        help="write frameworks.json and its page into this new or empty folder",
    )
    add_data(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def _counts(text: str) -> list[int]:
    """Whole numbers of at least 1, for argparse."""
    return [positive(part) for part in text.split(",")]


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables or the document, write the page."""
    check_alone("bench")
    out: Path | None = options.out
    check_free_for_benchmark(out)
    recipe, folder = load_recipe(options.recipe, options.overrides), data_folder(options)
    from batchscale.bench.frameworks.measure import BUDGET, bench_frameworks

    findings = bench_frameworks(
        recipe,
        Path(options.recipe).stem,
        folder,
        options.processes,
        overrides=options.overrides,
        epochs=options.epochs,
        environments=options.environments,
        budget=replace(BUDGET, min_rounds=options.rounds, max_rounds=options.rounds),
        say=lambda line: print(shown(line), file=sys.stderr, flush=True),
        keep=partial(_keep, options) if out is not None else lambda findings: None,
    )
    if options.json:
        print_json(findings.result)
    else:
        print(_text(findings), flush=True)
    if out is not None:
        _keep(options, findings)
        page = _page(out)
        print(shown(f"wrote {out / 'frameworks.json'}, {page}"), file=sys.stderr, flush=True)
    return 0


def _text(findings: Findings) -> str:
    """Answer, tables and warnings."""
    tables = [f"{table.title}\n{as_text(table)}" for table in findings.tables[:2]]
    return "\n\n".join([shown(findings.answer), *tables, *(shown(f"note: {line}") for line in findings.warnings)])


def _keep(options: argparse.Namespace, findings: Findings) -> None:
    """The document, whole or not at all; so that a benchmark that is stopped leaves what it had."""
    out: Path = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "frameworks.json", findings.result)
    except OSError as error:
        raise cannot_write(out, error) from error
    options.keeps = str(out)


def _page(out: Path) -> Path:
    from batchscale.report.page import write

    return write(out).path
