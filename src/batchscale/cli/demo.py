"""batchscale demo: large minibatches fail naively and succeed by the rules."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from batchscale.cli.options import add_common, folder_path, print_json
from batchscale.cli.study.flags import add_flags, question_from
from batchscale.cli.study.order import Answered, answer, print_warnings
from batchscale.study.demo.question import Question
from batchscale.system.cores import available_cores
from batchscale.words import shown

_MOST_AT_ONCE = 4  # runs


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("demo", help=Question.summary)
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR", help="folder of runs, page and figure (default runs/demo-TIME)"
    )
    add_flags(parser, Question)
    add_common(parser)
    parser.set_defaults(run=run, launcher="local", slurm=[], data=None)


def run(options: argparse.Namespace) -> int:
    """Train, print a table, draw the figure.

    Returns:
        1 where a run failed, else 0.
    """
    from batchscale.study.demo.words import LESSON

    start, question = time.monotonic(), question_from(options, Question)
    options.jobs = min(available_cores(), _MOST_AT_ONCE)
    answered = answer(options, "demo", question)
    print_warnings(answered.findings)
    ways, figures = answered.findings.result["ways"], _drawn(answered)
    seconds = round(time.monotonic() - start, 1)
    if options.json:
        findings = answered.findings
        print_json(
            {"rows": _rows(answered), "ways": ways, "figures": figures, "seconds": seconds, "answer": findings.answer}
        )
        return answered.exit_code
    _print_ways(answered)
    print("", *(LESSON if question.task == "classification" else [answered.findings.answer]), sep="\n")
    places = f"figure: {', '.join(figures)}; page: {answered.page}; runs below {answered.out}"
    print(f"\n{seconds:.0f} s; {shown(places)}")
    return answered.exit_code


def _print_ways(answered: Answered) -> None:
    from batchscale.study.evidence.judged import judged_of

    judged = judged_of(answered.outcomes)
    unit, heading = f" {judged.score.unit}".rstrip(), f"test {judged.score.name}, mean"
    places, wide = (8, 18) if judged.score.name == "error" else (11, len(heading) + 2)
    print(f"\n{'':<56}{'kn':>6}{'lr':>{places}}{heading:>{wide}}   each seed")
    for way in answered.findings.result["ways"]:
        each = "  ".join("-" if value is None else f"{value:.2f}" for value in way[f"{judged.score.name}s"])
        value = way[f"mean_{judged.key}"]
        mean = "-" if value is None else f"{value:.2f}{unit}"
        print(f"{way['about']:<56}{way['minibatch']:>6}{way['lr']:>{places}.4g}{mean:>{wide}}   {each}")


def _rows(answered: Answered) -> list[dict[str, Any]]:
    """One a run: the way by its name, the folder as it can be opened."""
    names = {way["about"]: way["name"] for way in answered.findings.result["ways"]}
    return [
        row | {"name": names[row["way"]], "about": row["way"], "folder": str(answered.out / row["folder"])}
        for row in answered.findings.rows
    ]


def _drawn(answered: Answered) -> list[str]:
    """The curves of all runs as PNG and SVG."""
    from batchscale.report.curves import error_curves
    from batchscale.report.draw.file import write_figures
    from batchscale.study.evidence.judged import judged_of

    groups: dict[str, list[Path]] = {}
    for outcome in answered.outcomes:
        label = f"{outcome.cell.labels['way']} (kn = {outcome.cell.minibatch_images})"
        groups.setdefault(label, []).append(outcome.folder)
    curves = error_curves(list(groups.items()), answered.findings.title, judged_of(answered.outcomes).score)
    return [str(path) for path in write_figures([curves], "", answered.out / "demo")]
