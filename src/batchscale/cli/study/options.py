"""What all studies share: their options, their folder, what they print at the end."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import (
    add_common,
    add_data,
    command_words,
    data_folder,
    default_folder,
    folder_path,
    positive,
    print_json,
)
from batchscale.recipe import Recipe
from batchscale.system.launcher import check_alone
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.records.findings import Findings
    from batchscale.study.runner.cell import Outcome
    from batchscale.study.runner.study import Study

_COLUMNS = 120  # of a line of prose


def add_study(studies: Any, name: str, words: str, about: str, seeds: int | None) -> argparse.ArgumentParser:
    """A study's parser with the options that all have; seeds: the default of --seeds, None for a study without it."""
    parser: argparse.ArgumentParser = studies.add_parser(
        name, help=words, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry, in all runs")
    parser.add_argument(
        "--out", type=folder_path, metavar="DIR", help="the study's folder (default runs/RECIPE-STUDY-TIME)"
    )
    if seeds is not None:
        parser.add_argument("--seeds", type=positive, default=seeds, metavar="S", help=f"of each (default {seeds})")
    parser.add_argument("--jobs", type=positive, default=1, metavar="J", help="runs at once (default 1)")
    parser.add_argument(
        "--launcher", choices=("local", "slurm"), default="local", help="where runs go (slurm: through submitit)"
    )
    add_data(parser)
    add_common(parser)
    return parser


def recipe_name(options: argparse.Namespace) -> str:
    """The recipe's name, for the records."""
    return Path(options.recipe).stem


def check_out(options: argparse.Namespace, kind: str, recipe: Recipe | None) -> None:
    """Raise where --out cannot hold this study, before torch and the data take their time.

    Args:
        options: of a parser from ``add_study``.
        kind: of study.
        recipe: the reference; None where it hangs on the data.

    Raises:
        FolderError: the folder holds something else, or cannot be written.
    """
    from batchscale.study.runner.folder import check_study

    if options.out is not None:
        check_study(options.out, kind, recipe)


def open_study(options: argparse.Namespace, kind: str, recipe: Recipe, asked: dict[str, Any]) -> Study:
    """The study of these options, to be entered.

    Args:
        options: of a parser from ``add_study``.
        kind: of study.
        recipe: the reference.
        asked: what was asked beside the recipe and the options that all studies have.
    """
    from batchscale.study.runner.study import Study

    name = recipe_name(options)
    check_alone("study")
    out = options.out or default_folder(options, f"{name}-{kind}")
    if options.out is None:
        print(shown(f"the study's folder: {out}"), file=sys.stderr, flush=True)
    return Study(
        out,
        kind,
        name,
        recipe,
        {"overrides": list(options.overrides), **({"seeds": options.seeds} if "seeds" in options else {}), **asked},
        [*command_words(options), *(["--out", str(out)] if options.out is None else [])],
        jobs=options.jobs,
        launcher=options.launcher,
        data_folder=data_folder(options),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )


def finish(
    options: argparse.Namespace, study: Study, findings: Findings, outcomes: Sequence[Outcome], answer: dict[str, Any]
) -> int:
    """Write the findings and the report, and print them; the exit code.

    Args:
        options: of the command.
        study: entered.
        findings: for findings.json.
        outcomes: of all runs.
        answer: goes beside "rows" in the JSON document.

    Returns:
        1 where a run failed, else 0.
    """
    from batchscale.report.page import write_report

    study.finish(findings)
    page = write_report(study.out)
    options.keeps = str(study.out)
    for line in findings.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if options.json:
        print_json({"rows": [outcome.row() for outcome in outcomes], **answer, "answer": findings.answer})
    else:
        for table in findings.tables:
            print(f"\n{table.title}\n{as_text(table.columns, table.rows)}")
            if table.caption:
                print(textwrap.fill(table.caption, _COLUMNS, initial_indent="  ", subsequent_indent="  "))
        print(f"\n{findings.answer}\n{shown(f'{page}: the figures; {study.out}/table.csv')}: one row a run")
    return int(any(outcome.status == "failed" for outcome in outcomes))


def as_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in aligned columns."""
    texts = [list(columns), *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(text[column]) for text in texts) for column in range(len(columns))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(text, widths, strict=True)) for text in texts]
    return "\n".join(line.rstrip() for line in lines)
