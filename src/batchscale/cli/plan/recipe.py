"""batchscale plan RECIPE: how many devices, which minibatch, how long, at what cost."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import add_common, add_data, file_path, folder_path, positive, print_json
from batchscale.cli.plan.out import check_out_folder
from batchscale.cost.ranges import MOST_DEVICES, OF_CLUSTER, RATE, Range
from batchscale.errors import UsageError
from batchscale.records.command import this_command
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.cost.planning.plan import Plan
    from batchscale.cost.planning.question import Bounds
    from batchscale.records.findings import Findings

ABOUT = """\
For each number of devices the best minibatch and all-reduce, examples a second, efficiency, epochs, time to the goal
and cost, each with an interval of 90 %; where more devices stop paying; one recommendation.

  batchscale plan imagenet-resnet50-1h --cluster dgx-a100 --devices 8..4096
  batchscale plan imagenet-resnet50-1h --cluster dgx-a100 --deadline 2h --price 4 --out plans/resnet
  batchscale plan mine.yaml --cluster mine-cluster.yaml --from runs/w8 runs/w16 --goal studies/steps --json

PATHs of --from are folders of runs and of studies, documents of `bench step --json`, and CSV tables with columns
devices, per_device_batch, examples_per_second (all devices together), and unit where an example has parts. Other kinds:
`batchscale plan validate`, `plan epochs` and `plan priors`.
"""
_HOSTS = 512
"""Of the default range, where the cluster's file does not say how many there are."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a plan."""
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="entries of the recipe to change")
    parser.add_argument(
        "--cluster", required=True, metavar="FILE", help="a cluster's file, or the name of a shipped one"
    )
    parser.add_argument(
        "--devices", type=devices_of, metavar="8..4096", help="LO..HI by doublings, or 8,12,16 (default: the cluster)"
    )
    parser.add_argument(
        "--from", dest="measured", nargs="+", action="extend", default=[], type=file_path, metavar="PATH",
        help="measured speeds, at two device counts or more",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", choices=("two", "host"),
        help="on the counts of at least one host, or on those inside one (default: what there is)",
    )  # fmt: skip
    parser.add_argument(
        "--goal", type=_named, metavar="GOAL",
        help="epochs at the recipe's minibatch (default: the recipe's); a published workload, or TABLE.csv:WORKLOAD; "
        "or the folder of a study or measure of the critical minibatch",
    )  # fmt: skip
    parser.add_argument("--critical", metavar="B[,LOW,HIGH]", help="the critical minibatch, in examples, by hand")
    parser.add_argument(
        "--per-worker", type=_sizes, default=(), metavar="N,N", help="examples a worker may have besides the recipe's"
    )
    parser.add_argument("--examples", type=positive, metavar="N", help="training examples of an epoch")
    _add_numbers(parser)
    parser.add_argument("--deadline", type=_deadline, metavar="2h", help="such as 90m, 2h, 1d12h: the cheapest in time")
    parser.add_argument(
        "--budget", type=_above_0, metavar="500", help="in the price's currency: the fastest that it pays"
    )
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR",
        help="findings.json and the page, with sliders: a new or empty folder, or an earlier plan's",
    )  # fmt: skip
    add_data(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    """Those that stand in for what a file says, or does not."""
    parser.add_argument(
        "--link", type=_link, metavar="GBIT,MICROSECONDS", help="between hosts, in place of the cluster's"
    )
    parser.add_argument(
        "--rate", type=_within(RATE), metavar="RATE",
        help="examples a second of one device, in place of the cluster's share",
    )  # fmt: skip
    parser.add_argument(
        "--launch", type=_within(OF_CLUSTER["launch_microseconds"]), metavar="MICROSECONDS",
        help="of the host, to hand a device one layer of a pass, in place of the cluster's (compiled: less)",
    )  # fmt: skip
    parser.add_argument(
        "--data-rate", type=_within(RATE), metavar="RATE", help="examples a second that are read for each device"
    )
    parser.add_argument(
        "--price", type=_within(OF_CLUSTER["price_per_device_hour"]), metavar="PRICE",
        help="of a device and an hour, in any currency",
    )  # fmt: skip


def devices_of(text: str) -> tuple[int, ...]:
    """LO..HI by doublings, or a list, for argparse."""
    first, dots, last = text.partition("..")
    try:
        counts = [positive(word) for word in ((first, last) if dots else text.split(","))]
    except argparse.ArgumentTypeError:
        counts = []
    rises = counts == sorted(set(counts)) or (dots and len(set(counts)) == 1)
    if not counts or not rises or counts[-1] > MOST_DEVICES:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be counts of devices that rise, up to {MOST_DEVICES:,}, such as 8..4096 or 8,16,24"
        )
    if not dots:
        return tuple(counts)
    doubled = counts[0]
    rising = []
    while doubled < counts[1]:
        rising.append(doubled)
        doubled *= 2
    return (*rising, counts[1])


def _named(text: str) -> str:
    """Words that are not empty, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} says nothing: give a value, or leave it out")
    return text


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(positive(word) for word in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of examples of at least 1, such as 8,16") from None


def _link(text: str) -> tuple[float, float]:
    from batchscale.cli.plan import link_of

    return link_of(text)


def _above_0(text: str) -> float:
    from batchscale.cli.plan import number_of

    value = number_of(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def _within(limits: Range) -> Callable[[str], float]:
    """A number of this range, for argparse."""

    def number(text: str) -> float:
        from batchscale.cli.plan import number_of

        value = number_of(text)
        if not limits.holds(value):
            raise argparse.ArgumentTypeError(f"{text!r} {limits.rule}")
        return value

    return number


def _deadline(text: str) -> float:
    from batchscale.cost.planning.spans import parse_span

    hours = parse_span(text)
    if hours is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a span of time above 0, such as 90m, 2h or 1d12h")
    return hours


def run(options: argparse.Namespace) -> int:
    """Plan, print, write."""
    from batchscale.cost.planning.words import plan_findings

    check_out_folder(options.out)
    plan, parameters = planned(options)
    findings = plan_findings(plan, parameters, this_command(options.typed))
    written = _write(plan, findings, options)
    if options.json:
        print_json({**findings.result, "answer": findings.answer} | ({"folder": written} if written else {}))
        return 0
    from batchscale.cli.plan import print_text

    print_text(findings)
    if written:
        print(f"{shown(written)}: findings.json, report.html")
    return 0


def planned(options: argparse.Namespace) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan, and the parameters behind it."""
    from batchscale.cli.plan.sources import question_of

    if options.calibrate is not None and not options.measured:
        raise UsageError(
            f"--calibrate={options.calibrate}: says nothing without measured points; give --from, or leave it out"
        )
    question, parameters, doubts = question_of(options)
    from batchscale.cost.planning.plan import make_plan

    return make_plan(question, doubts), parameters


def bounds_of(options: argparse.Namespace, price: float | None) -> Bounds:
    """Deadline and budget.

    Raises:
        UsageError: a budget without a price.
    """
    from batchscale.cost.planning.question import Bounds

    if options.budget is not None and price is None:
        raise UsageError(
            f"--budget={options.budget:g}: the cluster's file has no price; give --price, of a device and an hour"
        )
    return Bounds(options.deadline, options.budget)


def default_devices(devices_per_host: int, hosts: int | None) -> tuple[int, ...]:
    """From one host on by doublings, to all of the cluster; inside of it where it is alone."""
    first = 1 if hosts == 1 else devices_per_host
    return devices_of(f"{first}..{devices_per_host * (hosts or _HOSTS)}")


def _write(plan: Plan, findings: Findings, options: argparse.Namespace) -> str:
    """The folder, with the findings and their page; "" where none is wanted."""
    if options.out is None:
        return ""
    from batchscale.cost.planning.sliders import sliders
    from batchscale.records.files import cannot_write
    from batchscale.report.page import write_report

    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(options.out, error, "give another --out DIR") from error
    on_page = findings.model_copy(update={"result": {**findings.result, "sliders": sliders(plan)}})
    on_page.write(options.out)
    write_report(options.out)
    options.keeps = str(options.out)
    return str(options.out)
