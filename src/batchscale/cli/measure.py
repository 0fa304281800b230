"""batchscale measure: a number of a run's state at a step. The measures come from their table, the flags from fields.

The findings lie in RUN/measures/MEASURE-STEP; `batchscale report` makes a page of that folder.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, add_data, command_words, data_folder, folder_path, positive, print_json
from batchscale.cli.study.flags import add_flags, question_from
from batchscale.errors import UsageError
from batchscale.measure.measures import MEASURES, measured, question_of
from batchscale.records.files import cannot_write
from batchscale.words import shown

_COLUMNS = 120  # of a line of prose


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
        add_flags(one, question)
        add_data(one)
        add_common(one)
        one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, keep the findings, print them."""
    kind = options.measure
    question = question_from(options, question_of(kind))
    if len(options.runs) > question.most_runs:
        raise UsageError(
            f"{kind} {options.runs[question.most_runs]}: is asked of {question.most_runs} run at once; give one RUN"
        )
    from batchscale.build.state import open_state

    states = [open_state(one, options.step or "last", data_folder=data_folder(options)) for one in options.runs]
    out = options.out or options.runs[0] / "measures" / f"{kind}-{states[0].step}"
    _make(out)
    findings = measured(kind, question, states, command_words(options))
    findings.write(out)
    options.keeps = str(out)
    for line in findings.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if options.json:
        print_json({**findings.result, "answer": findings.answer, "folder": str(out)})
        return 0
    from batchscale.records.text import as_text

    print(textwrap.fill(findings.asked, _COLUMNS))
    for table in findings.tables:
        print(f"\n{table.title}\n{as_text(table)}\n  {table.caption}")
    print(f"\n{findings.answer}\n{shown(str(out))}: findings.json; `batchscale report` makes a page of it")
    return 0


def _make(folder: Path) -> None:
    """The folder of the findings, before anything is measured: it may be refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, "give another --out DIR") from error
