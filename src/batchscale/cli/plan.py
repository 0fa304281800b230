"""batchscale plan: what more devices bring, predicted from few measured points, and how well that predicts."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import add_common, print_json
from batchscale.errors import DataError, UsageError
from batchscale.records.command import this_command
from batchscale.records.files import write_json
from batchscale.records.text import as_text
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.cost.validate import Floor
    from batchscale.records.findings import Findings, Table

_VALIDATE = """\
Predict the speeds of published or measured series from a few of their own points, and compare. A SERIES.csv has the
columns source, system, model, devices, devices_per_host, per_device_batch, precision, and images_per_second or
examples_per_second (all devices together); a series is what is equal in source, system, model, per_device_batch and
precision.

  batchscale plan validate SERIES.csv
  batchscale plan validate SERIES.csv OTHERS.csv --calibrate host --json
  batchscale plan validate SERIES.csv --calibrate host --link 50,10 --gradient-mb 102
"""
_EPOCHS = """\
Fit E(B) = E_min (1 + B / B_crit), the data that a goal needs at minibatch B, to tables of what was needed, and test
whether that form holds: each point is predicted from all others of its workload. Columns of TABLE.csv: benchmark,
minibatch, mean_to_target (or epochs_mean), and unit.

  batchscale plan epochs TABLE.csv
"""
_PRIORS = """\
Fit the priors of the small form to tables of speeds: how much slower a step becomes at each doubling of the hosts, how
far a doubling lies from that, and what leaving the first host costs. The package ships those of published tables.

  batchscale plan priors SERIES.csv OTHERS.csv --out priors.json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("plan", help="how far more devices pay, before they are bought", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    validate = _kind(kinds, "validate", "predicted speeds against published ones", _VALIDATE)
    _add_series(validate)
    validate.add_argument(
        "--calibrate",
        choices=("two", "host"),
        default="two",
        help="on the two smallest device counts of at least one host (default), or on those inside one host",
    )
    link = validate.add_mutually_exclusive_group()
    link.add_argument(
        "--link",
        type=link_of,
        metavar="GBIT,MICROSECONDS",
        help="of a host to the others, its speed and its latency: no step is shorter than its all-reduce",
    )
    validate.add_argument("--gradient-mb", type=_megabytes, metavar="MB", help="megabytes of gradients a step")
    add_common(validate)
    validate.set_defaults(run=run_validate)
    epochs = _kind(kinds, "epochs", "data to a goal against the minibatch, and whether the form holds", _EPOCHS)
    epochs.add_argument("table", type=Path, metavar="TABLE.csv", help="what was needed at each minibatch")
    add_common(epochs)
    epochs.set_defaults(run=run_epochs)
    priors = _kind(kinds, "priors", "fit the priors of the small form to tables", _PRIORS)
    _add_series(priors)
    priors.add_argument("--out", type=Path, metavar="FILE", help="write them as JSON, too")
    add_common(priors)
    priors.set_defaults(run=run_priors)


def _kind(kinds: Any, name: str, words: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=words, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("series", nargs="+", type=Path, metavar="SERIES.csv", help="a table of speeds, or its folder")


def _number(text: str) -> float:
    """A finite number; not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def link_of(text: str) -> tuple[float, float]:
    """GBIT,MICROSECONDS, for argparse: above 0, and not below 0."""
    numbers = [_number(part) for part in text.split(",")]
    if len(numbers) != 2 or not (0 < numbers[0] < math.inf and 0 <= numbers[1] < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} must be Gbit/s above 0, a comma, and microseconds, such as 100,5")
    return numbers[0], numbers[1]


def _megabytes(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of megabytes above 0")
    return value


def run_validate(options: argparse.Namespace) -> int:
    """Predict, compare, print."""
    floor = _floor(options)
    from batchscale.cost.series import read_series
    from batchscale.cost.validate import validate
    from batchscale.cost.validation_words import validation_findings

    validation = validate(read_series(options.series), options.calibrate, floor)
    if not validation.eligible:
        reasons = "; ".join(f"{count} with {why}" for why, count in validation.ineligible.items())
        raise DataError(
            f"--calibrate={options.calibrate}: no series has a point to predict ({reasons}); give series with more "
            f"device counts"
        )
    _print(validation_findings(validation, this_command(options.typed)), options)
    return 0


def _floor(options: argparse.Namespace) -> Floor | None:
    """The least that a step can take, by what the flags say of the link.

    Raises:
        UsageError: they do not go together.
    """
    if options.link is None:
        if options.gradient_mb is not None:
            raise UsageError(
                f"--gradient-mb={options.gradient_mb:g}: says nothing without a link; give --link GBIT,MICROSECONDS"
            )
        return None
    if options.calibrate != "host":
        raise UsageError(
            f"--calibrate={options.calibrate}: two measured points hold what a link costs; leave --link out, or use "
            f"--calibrate host"
        )
    if options.gradient_mb is None:
        raise UsageError("--link: what goes over it must be known, too; give --gradient-mb MB")
    from batchscale.cost.links import Link
    from batchscale.cost.validate import Floor

    return Floor(Link(*options.link), options.gradient_mb * 1e6)


def run_epochs(options: argparse.Namespace) -> int:
    """Fit, test, print."""
    from batchscale.cost.epochs import fit_epochs, read_workloads
    from batchscale.cost.epochs_words import epochs_findings

    fits = [fit_epochs(workload) for workload in read_workloads(options.table)]
    _print(epochs_findings(fits, this_command(options.typed)), options)
    return 0


def run_priors(options: argparse.Namespace) -> int:
    """Fit, print, write."""
    from batchscale.cost.priors import FEWEST_SERIES, FEWEST_SOURCES, fit_priors
    from batchscale.cost.series import read_series
    from batchscale.cost.validation_words import priors_table

    series = read_series(options.series)
    priors = fit_priors(series)
    if priors is None:
        raise DataError(
            f"plan priors: {len(series)} series are too few: {FEWEST_SERIES} of at least {FEWEST_SOURCES} sources must "
            f"have two device counts beyond one host; give more tables"
        )
    if options.out is not None:
        write_json(options.out, priors.as_json())
    if options.json:
        print_json({**priors.as_json(), "parameters": priors.parameters()})
    else:
        _print_table(priors_table({f"{priors.series} series, {priors.steps} steps": priors}))
    return 0


def _print(findings: Findings, options: argparse.Namespace) -> None:
    """The document, or the text."""
    if options.json:
        print_json(findings.result)
        return
    print(findings.asked)
    print(findings.answer)
    for table in findings.tables:
        print()
        _print_table(table)
    for warning in findings.warnings:
        print(shown(f"warning: {warning}"), file=sys.stderr)


def _print_table(table: Table) -> None:
    print(table.title)
    print(shown_lines(as_text(table)))
    if table.caption:
        print(table.caption)


def shown_lines(text: str) -> str:
    """Lines of a table whose cells come from somebody's file."""
    return "\n".join(map(shown, text.split("\n")))
