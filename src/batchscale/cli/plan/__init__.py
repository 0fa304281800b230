"""batchscale plan: what more devices bring, predicted from few measured points, and how well that predicts."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import add_common, file_path, print_json
from batchscale.cli.plan import recipe as plan_recipe
from batchscale.cli.plan.out import check_out_file
from batchscale.cost.ranges import OF_CLUSTER
from batchscale.errors import DataError, UsageError
from batchscale.records.command import this_command
from batchscale.records.files import write_json
from batchscale.records.text import as_text
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.cost.speeds.validate import Floor
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


KINDS = ("recipe", "validate", "epochs", "priors")
"""`recipe` is never typed: what is no other kind is a recipe's name."""


def with_kind(words: Sequence[str]) -> Sequence[str]:
    """The words after `plan`, with the kind of `plan RECIPE` before them.

    Args:
        words: as typed.
    """
    return words if not words or words[0] in ("-h", "--help", *KINDS) else ["recipe", *words]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("plan", help="how far more devices pay, before they are bought", description=__doc__)
    parser.words_of = with_kind
    kinds = parser.add_subparsers(
        dest="kind", metavar="RECIPE or KIND", required=True, parser_class=type(parser), prog="batchscale plan"
    )
    recipe = kinds.add_parser(
        "recipe", help="a RECIPE itself: the best minibatch and all-reduce at each number of devices, time and cost",
        description=plan_recipe.ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter, prog="batchscale plan",
    )  # fmt: skip
    plan_recipe.add_flags(recipe)
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
        "--cluster", metavar="FILE", help="a cluster's file, or the name of a shipped one, in place of --link"
    )
    link.add_argument(
        "--link",
        type=link_of,
        metavar="GBIT,MICROSECONDS",
        help="of a host to the others, its speed and its latency: no step is shorter than its all-reduce",
    )
    validate.add_argument("--gradient-mb", type=_megabytes, metavar="MB", help="megabytes of gradients a step")
    add_common(validate)
    validate.set_defaults(run=run_validate)
    _add_epochs(kinds)
    priors = _kind(kinds, "priors", "fit the priors of the small form to tables", _PRIORS)
    _add_series(priors)
    priors.add_argument("--out", type=file_path, metavar="FILE", help="write them as JSON, too")
    add_common(priors)
    priors.set_defaults(run=run_priors)


def _add_epochs(kinds: Any) -> None:
    epochs = _kind(kinds, "epochs", "data to a goal against the minibatch, and whether the form holds", _EPOCHS)
    epochs.add_argument("table", type=file_path, metavar="TABLE.csv", help="what was needed at each minibatch")
    epochs.add_argument("--out", type=file_path, metavar="FILE", help="write what a plan takes of it as JSON, too")
    add_common(epochs)
    epochs.set_defaults(run=run_epochs)


def _kind(kinds: Any, name: str, words: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=words, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "series", nargs="+", type=file_path, metavar="SERIES.csv", help="a table of speeds, or its folder"
    )


def number_of(text: str) -> float:
    """A finite number; not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def link_of(text: str) -> tuple[float, float]:
    """GBIT,MICROSECONDS, for argparse."""
    numbers = [number_of(part) for part in text.split(",")]
    speed, latency = OF_CLUSTER["between_gbit_per_second"], OF_CLUSTER["between_microseconds"]
    if len(numbers) != 2 or not (speed.holds(numbers[0]) and (numbers[1] == 0 or latency.holds(numbers[1]))):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be Gbit/s ({speed.span}), a comma, and microseconds (0 to {latency.high:,.0f}), such as "
            f"100,5"
        )
    return numbers[0], numbers[1]


def _megabytes(text: str) -> float:
    value = number_of(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of megabytes above 0")
    return value


def run_validate(options: argparse.Namespace) -> int:
    """Predict, compare, print."""
    floor = _floor(options)
    from batchscale.cost.speeds.series import read_series
    from batchscale.cost.speeds.validate import validate
    from batchscale.cost.speeds.validation_words import validation_findings

    validation = validate(read_series(options.series), options.calibrate, floor)
    if not validation.eligible:
        reasons = "; ".join(f"{count} with {why}" for why, count in validation.ineligible.items())
        raise DataError(
            f"--calibrate={options.calibrate}: no series has a point to predict ({reasons}); give series with more "
            f"device counts"
        )
    print_findings(validation_findings(validation, this_command(options.typed)), options)
    return 0


def _floor(options: argparse.Namespace) -> Floor | None:
    """The least that a step can take, by what the flags say of the link.

    Raises:
        UsageError: they do not go together.
    """
    if options.link is None and options.cluster is None:
        if options.gradient_mb is not None:
            raise UsageError(
                f"--gradient-mb={options.gradient_mb:g}: says nothing without a link; give --link or --cluster"
            )
        return None
    if options.calibrate != "host":
        raise UsageError(
            f"--calibrate={options.calibrate}: two measured points hold what a link costs; leave --link and "
            f"--cluster out, or use --calibrate host"
        )
    from batchscale.cost.clusters.cluster import read_cluster
    from batchscale.cost.clusters.links import Link
    from batchscale.cost.speeds.validate import Floor

    link = Link(*options.link) if options.cluster is None else read_cluster(options.cluster).link()
    if options.gradient_mb is None and options.cluster is not None:
        print("warning: --cluster: without --gradient-mb MB its link says nothing of a step", file=sys.stderr)
        return None
    if options.gradient_mb is None:
        raise UsageError("--link: what goes over it must be known, too; give --gradient-mb MB")
    return Floor(link, options.gradient_mb * 1e6)


def run_epochs(options: argparse.Namespace) -> int:
    """Fit, test, print."""
    from batchscale.cost.goal.epochs import fit_epochs, read_workloads
    from batchscale.cost.goal.epochs_words import epochs_findings
    from batchscale.cost.planning.published import WORKLOAD_ENTRIES

    check_out_file(options.out, [options.table], WORKLOAD_ENTRIES)
    fits = [fit_epochs(workload) for workload in read_workloads(options.table)]
    if options.out is not None:
        from batchscale.cost.planning.fitted import accepted

        workloads = [workload.as_json() for workload in accepted(fits, options.table)]
        if workloads:
            write_json(options.out, workloads)
        else:
            print(shown(f"warning: --out={options.out}: not written: a plan can take no workload of the table"),
                  file=sys.stderr)  # fmt: skip
    print_findings(epochs_findings(fits, this_command(options.typed)), options)
    return 0


def run_priors(options: argparse.Namespace) -> int:
    """Fit, print, write."""
    from batchscale.cost.speeds.priors import FEWEST_SERIES, FEWEST_SOURCES, PRIORS_ENTRIES, fit_priors
    from batchscale.cost.speeds.series import read_series
    from batchscale.cost.speeds.validation_words import priors_table

    check_out_file(options.out, options.series, PRIORS_ENTRIES)
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


def print_findings(findings: Findings, options: argparse.Namespace) -> None:
    """The document, or the text."""
    if options.json:
        print_json(findings.result)
    else:
        print_text(findings)


def print_text(findings: Findings) -> None:
    """Question, answer, tables; warnings on standard error."""
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
