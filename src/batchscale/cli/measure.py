"""batchscale measure: a number of a run's state at a step. The measures come from their table, the flags from fields.

The findings lie in RUN/measures/MEASURE-STEP; `batchscale report` makes a page of that folder. A process computes on
one core, --processes W on W of them; the numbers are the same, bit by bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.cli import workers
from batchscale.cli.options import add_common, add_data, command_words, data_folder, folder_path, positive, print_json
from batchscale.cli.study.flags import add_flags, question_from
from batchscale.errors import UsageError
from batchscale.measure.measures import MEASURES, measured, question_of
from batchscale.records.files import cannot_write
from batchscale.records.findings import Findings, read_findings
from batchscale.system.launcher import is_worker
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.build.state import State
    from batchscale.measure.question import MeasureQuestion

_COLUMNS = 120  # of a line of prose
_STARTUP_SECONDS, _TIMEOUT_SECONDS = 300.0, 3600.0  # a process that measures is silent until its share is done


def add(commands: Any) -> None:
    """Add the command with its measures."""
    parser = commands.add_parser("measure", help="a number of a run at one of its steps", description=__doc__)
    measures = parser.add_subparsers(dest="measure", metavar="MEASURE", required=True, parser_class=type(parser))
    for kind in MEASURES:
        question = question_of(kind)
        one = measures.add_parser(
            kind,
            help=question.summary,
            description=question.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("runs", nargs="+", type=folder_path, metavar="RUN", help="a run's folder")
        one.add_argument("--step", type=positive, metavar="S", help="of a checkpoint (default: the last one)")
        one.add_argument("--out", type=folder_path, metavar="DIR", help="of the findings (default RUN/measures/...)")
        one.add_argument("--processes", type=positive, default=1, metavar="W", help="that share the work (default 1)")
        add_flags(one, question)
        add_data(one)
        add_common(one)
        one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, keep the findings, print them: in this process, in W that it launches, or as one of a launcher's."""
    if not is_worker():
        return _parent(options)
    return _worker(options, workers.enter(options, (("processes", 1),)))


def _parent(options: argparse.Namespace) -> int:
    question, states, out = _asked(options)
    _make(out)
    if options.processes == 1:
        findings = measured(options.measure, question, states, command_words(options), folder=out)
        findings.write(out)
    else:
        from batchscale.launch.processes import launch

        one = [*options.typed, "--processes", "1", "--out", str(out)]  # the last word counts
        launch(one, options.processes, 0, command_words(options), "the same command begins it again")
        findings = read_findings(out)
    return _report(findings, out, options)


def _worker(options: argparse.Namespace, ours: bool) -> int:
    """One of W processes: all measure alike, rank 0 writes, and below an outside launcher prints."""
    from batchscale.launch.processes import launched_command, record_error

    try:
        from batchscale.comm import World

        question, states, out = _asked(options)
        world, ended = World.connect(states[0].device, _TIMEOUT_SECONDS, _STARTUP_SECONDS), False
        try:
            world.from_rank_zero(lambda: _make(out), "making the folder of the findings")
            command = launched_command() if ours else tuple(command_words(options))
            findings = measured(options.measure, question, states, command, world, out)
            world.from_rank_zero(lambda: findings.write(out), "writing the findings")
            ended = True
        finally:
            world.close(wait=ended)
    except BaseException as error:
        record_error(error)
        return workers.leave(workers.tell(error, options, ours), options)
    if workers.is_first() and not ours:
        _report(findings, out, options)
    return workers.leave(0, options)


def _asked(options: argparse.Namespace) -> tuple[MeasureQuestion, list[State], Path]:
    """The question, the states it is asked of, and the folder of the findings."""
    kind = options.measure
    question = question_from(options, question_of(kind))
    if len(options.runs) > question.most_runs:
        raise UsageError(
            f"{kind} {options.runs[question.most_runs]}: is asked of {question.most_runs} run at once; give one RUN"
        )
    from batchscale.build.state import open_state
    from batchscale.launch.hardware import choose_device

    states = [open_state(one, options.step or "last", data_folder=data_folder(options)) for one in options.runs]
    device = choose_device(states[0].recipe)
    states = [dataclasses.replace(state, device=device) for state in states]
    return question, states, options.out or options.runs[0] / "measures" / f"{kind}-{states[0].step}"


def _report(findings: Findings, out: Path, options: argparse.Namespace) -> int:
    options.keeps = str(out)
    for line in findings.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if options.json:
        print_json({**findings.result, "answer": findings.answer, "folder": str(out)})
        return 0
    from batchscale.records.text import as_text

    print(textwrap.fill(findings.asked, _COLUMNS))
    for table in findings.tables:
        print(f"\n{table.title}\n{as_text(table)}" + (f"\n  {table.caption}" if table.caption else ""))
    print(f"\n{findings.answer}\n{shown(str(out))}: findings.json; `batchscale report` makes a page of it")
    return 0


def _make(folder: Path) -> None:
    """The folder of the findings, before anything is measured: it may be refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, "give another --out DIR") from error
