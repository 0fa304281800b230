"""batchscale bench: throughput on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchscale.cli import bench_frameworks
from batchscale.cli.options import add_common, add_data, data_folder, folder_path, positive, print_json
from batchscale.errors import FolderError, UsageError
from batchscale.recipe import load_recipe
from batchscale.records.files import cannot_write, write_json
from batchscale.records.findings import Findings
from batchscale.records.folder import check_free_for_benchmark
from batchscale.system.launcher import check_alone
from batchscale.words import counted, shown

_DEFAULT_RECIPE = "fashion-mnist-cnn"
_DEFAULT_OVERRIDES = ("minibatch.workers=16", "minibatch.per_worker=32")
_STEP = f"""\
Measure a training step of batchscale, fast and exact, beside its ceiling (forward, backward and update alone) and
beside the same training as other libraries' documentation writes it. All run in turn, block by block; ratios are
medians of paired rounds, with 90 % intervals; from 30 rounds on each ratio to a peer has a verdict, with a margin of
2 %. Takes up to five minutes, or --rounds R. The default is {_DEFAULT_RECIPE} with 16 workers of 32 images:

  batchscale bench step
  batchscale bench step fashion-mnist-cnn minibatch.workers=32 --processes 2 --json
  batchscale bench step fashion-mnist-cnn --rounds 30
"""
_PHOTOGRAPHS_RECIPE = "imagenet-resnet50-1h"
_PHOTOGRAPHS_OVERRIDES = ("data.name=folder", "minibatch.workers=2")
_DATA = """\
Measure how fast this machine turns a data set into normalised minibatches ready to train on: batchscale's feed beside
what other libraries' documentation writes (ImageFolder or a data set's class, and a DataLoader), with as many decoding
threads or loader workers for each. All run in turn; ratios are medians of paired rounds.

Without a RECIPE the images are crops of two photographs that come with scikit-learn, or those of --data DIR
(DIR/train/<class>/<image>), augmented as by imagenet-resnet50-1h. With a RECIPE they are its own training images.

  batchscale bench data
  batchscale bench data --data DIR
  batchscale bench data imagenet-resnet50-1h minibatch.workers=4 --data DIR --threads 8 --json
  batchscale bench data cifar10-resnet20 --data DIR
"""
_ALLREDUCE = """\
Measure every all-reduce that W processes of this machine can use, from 1 KB to 100 MB, in turn with the backend as
torch ships it (builtin_shipped) and as tuned here (builtin), and beside the limit of copying memory. The fastest of
each size is kept for runs with execution.aggregation.algorithm=auto, and timed afresh against the backend.

  batchscale bench allreduce
  batchscale bench allreduce --processes 8 --out build/allreduce-8
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
    step.add_argument(
        "--rounds",
        type=positive,
        metavar="R",
        help="exactly so many, as long as they take (default: what five minutes hold); 30 tell slower from not slower",
    )
    add_data(step)
    add_common(step)
    step.set_defaults(run=run_step)
    _add_data(kinds)
    _add_allreduce(kinds)
    bench_frameworks.add(kinds)


def _add_data(kinds: Any) -> None:
    data = kinds.add_parser(
        "data",
        help="from a data set to minibatches, beside other libraries' ways",
        description=_DATA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data.add_argument("recipe", nargs="?", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    data.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry")
    data.add_argument(
        "--threads",
        type=positive,
        metavar="T",
        help="decoding threads, or loader workers, of each (default: the cores that this process may use)",
    )
    data.add_argument(
        "--seconds",
        type=positive,
        default=120,
        metavar="S",
        help="about how long to measure, but 5 rounds at least (default 120)",
    )
    add_data(data)
    add_common(data)
    data.set_defaults(run=run_data)


def _add_allreduce(kinds: Any) -> None:
    allreduce = kinds.add_parser(
        "allreduce",
        help="every all-reduce at every size, and the fastest kept for the runs to come",
        description=_ALLREDUCE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    allreduce.add_argument("--processes", type=positive, default=2, metavar="W", help="local processes (default 2)")
    allreduce.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help="about how long to measure, but 3 rounds at least (default 140 + 20 W, at most 600)",
    )
    allreduce.add_argument("--no-store", action="store_true", help="do not keep the choice for runs on this machine")
    allreduce.add_argument(
        "--out",
        type=folder_path,
        metavar="DIR",
        help="write allreduce.json and the figure into this new or empty folder",
    )
    add_common(allreduce)
    allreduce.set_defaults(run=run_allreduce)


def _named(options: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The recipe, None where none is named, and the overrides."""
    name: str | None = options.recipe
    if name is not None and "=" in name and not Path(name).is_file():
        return None, [name, *options.overrides]
    return name, options.overrides


def run_step(options: argparse.Namespace) -> int:
    """Measure, then print the table or the document."""
    check_alone("bench")
    name, overrides = _named(options)
    if name is None:
        name, overrides = _DEFAULT_RECIPE, [*_DEFAULT_OVERRIDES, *overrides]
    recipe = load_recipe(name, overrides)
    folder = data_folder(options)
    from batchscale.bench.step import BUDGET, bench_step
    from batchscale.bench.table import as_table

    rounds = options.rounds
    findings = bench_step(
        recipe,
        Path(name).stem,
        folder,
        options.processes,
        budget=replace(BUDGET, min_rounds=rounds, max_rounds=rounds) if rounds else BUDGET,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.json:
        print_json(findings.result)
    else:
        print(as_table(findings.result))
    from batchscale.cost.clusters.this_machine import keep_step
    from batchscale.cost.step.net_table import net_key, shipped_nets

    plain = recipe.numerics.wire == "fp32" and not (recipe.execution.measures or recipe.execution.noise_scale_steps)
    net = shipped_nets().get(net_key(recipe.model_dump(mode="json"))) if plain else None
    _keep_machine(lambda: keep_step(findings.result, net))
    return 0


def _keep_machine(keep: Callable[[], Path | None]) -> None:
    """Add to this machine's cluster file what was measured; a plan alone misses it where that cannot be written."""
    try:
        file = keep()
    except (OSError, FolderError) as error:
        print(shown(f"note: not kept for plans of this machine: {error}"), file=sys.stderr, flush=True)
        return
    if file is not None:
        print(shown(f"kept for plan --cluster this-machine: {file}"), file=sys.stderr, flush=True)


def run_data(options: argparse.Namespace) -> int:
    """Measure, then print the table or the document."""
    check_alone("bench")
    name, overrides = _named(options)
    folder = data_folder(options)
    own_photographs = name is None and options.data is None
    if name is None:
        recipe = load_recipe(_PHOTOGRAPHS_RECIPE, [*_PHOTOGRAPHS_OVERRIDES, *overrides])
    else:
        recipe = load_recipe(name, overrides)
    if own_photographs and recipe.data.name != "folder":
        raise UsageError(f"data.name={recipe.data.name}: must be folder where no recipe is named; name a RECIPE")
    from batchscale.bench.data.measure import BUDGET, bench_data
    from batchscale.bench.data.table import as_table
    from batchscale.launch.hardware import own_cores

    findings = bench_data(
        recipe,
        Path(name).stem if name else ("photographs" if own_photographs else "folder"),
        folder,
        options.threads or own_cores(),
        own_photographs=own_photographs,
        budget=replace(BUDGET, total_seconds=options.seconds),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.json:
        print_json(findings.result)
    else:
        print(as_table(findings.result), flush=True)
    return 0


def run_allreduce(options: argparse.Namespace) -> int:
    """Measure, write and keep, then print the tables or the document."""
    check_alone("bench")
    out: Path | None = options.out
    check_free_for_benchmark(out)
    from batchscale.bench.allreduce.measure import bench_allreduce, budget_of
    from batchscale.bench.allreduce.table import as_table

    findings = bench_allreduce(
        options.processes,
        budget=budget_of(options.processes, options.seconds),
        keep=not options.no_store,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.json:
        print_json(findings.result)
    else:
        print(as_table(findings.result), flush=True)
    if not options.no_store:
        from batchscale.cost.clusters.this_machine import keep_all_reduces

        _keep_machine(lambda: keep_all_reduces(findings.result))
    if out is not None:
        _write(findings, out)
        options.keeps = str(out)
    return 0


def _write(findings: Findings, out: Path) -> None:
    """Document and figures; after they were printed, so that a full disk loses nothing."""
    from batchscale.report.draw.file import write_figures

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "allreduce.json", findings.result)
        written = [out / "allreduce.json", *write_figures(findings.figures, _conditions(findings), out / "allreduce")]
    except OSError as error:
        raise cannot_write(out, error) from error
    print(shown(f"wrote {', '.join(map(str, written))}"), file=sys.stderr, flush=True)


def _conditions(findings: Findings) -> str:
    """The title of the figures, with what they hold for."""
    machine = findings.environment
    return (
        f"{findings.title} on {counted(machine['cores'], 'core')} of {machine['cpu']}, float32; "
        f"torch {machine['torch']}, load {machine['load_average']:g}, {machine['date'][:10]}"
    )
