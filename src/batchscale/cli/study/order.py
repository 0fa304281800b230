"""The one order of all studies: validate, open the folder, run the cells, findings, table, report, answer.

What needs neither torch nor the data is judged before them, and all of it before anything is written.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import command_words, data_folder, default_folder, print_json
from batchscale.errors import FolderError, UsageError
from batchscale.recipe import Recipe, load_recipe
from batchscale.records.command import this_command
from batchscale.records.folder import holds_run
from batchscale.study.question import Case, StudyQuestion
from batchscale.study.runner.slurm import Cluster, cluster_from
from batchscale.study.studies import cells_of, findings_of
from batchscale.system.launcher import check_alone
from batchscale.words import shown

if TYPE_CHECKING:
    from batchscale.records.findings import Findings
    from batchscale.study.runner.cell import Outcome
    from batchscale.study.runner.study import Study

_COLUMNS = 120  # of a line of prose


@dataclass(frozen=True)
class Answered:
    """A study that has run.

    Args:
        out: its folder.
        page: report.html there.
        findings: written there, too.
        outcomes: of all runs.
    """

    out: Path
    page: Path
    findings: Findings
    outcomes: Sequence[Outcome]

    @property
    def exit_code(self) -> int:
        """1 where a run failed, else 0."""
        return int(any(outcome.status == "failed" for outcome in self.outcomes))


def answer(options: argparse.Namespace, kind: str, question: StudyQuestion) -> Answered:
    """Run a study.

    Args:
        options: out, jobs, launcher, slurm and data; recipe and overrides where the question is not of one recipe.
        kind: of study.
        question: of that kind.

    Raises:
        BatchscaleError: it cannot be run, or was stopped.
    """
    from batchscale.report.page import write_report
    from batchscale.study.runner.folder import check_study

    cluster = _cluster(options)
    source, overrides = question.own_recipe or (options.recipe, ())
    overrides = (*overrides, *getattr(options, "overrides", ()))
    run = _run_of(question, source)
    asked_recipe = load_recipe(source if run is None else run / "recipe.yaml", overrides)
    if run is not None:
        question.check_run(load_recipe(run / "recipe.yaml"), asked_recipe)
    question.check(asked_recipe)
    if question.measures_time(asked_recipe) and options.jobs not in (None, 1):
        raise UsageError(f"--jobs={options.jobs}: this study measures time, one run at a time; leave --jobs out")
    if options.out is not None:
        check_study(options.out, kind, None)
    data = None if question.of_recipe else data_folder(options)
    count_images = _counter(data)
    recipe = question.starting_recipe(asked_recipe, count_images)
    if options.out is not None:
        check_study(options.out, kind, recipe)
    case = Case(
        question, source, overrides, recipe, count_images, cluster.task_cores(recipe) if cluster else None, data, run
    )
    cells = cells_of(kind, case)
    with _open(options, kind, case, data, cluster) as study:
        question.check_begun(case, cells, study.out / "runs")
        waiting = {cell.key for cell in cells if not (study.out / "runs" / cell.key / "result.json").exists()}
        if waiting and (line := question.foreword(len(waiting), options.jobs or 1)):
            print(line, file=sys.stderr, flush=True)
        outcomes = study.run(cells)
        while further := question.further(case, outcomes):
            outcomes = [*outcomes, *study.run(further)]
        question.after_runs(case, outcomes)
        findings = findings_of(kind, case, outcomes, study.command)
        study.finish(findings)
        options.keeps = str(study.out)
        return Answered(study.out, write_report(study.out), findings, outcomes)


def _run_of(question: StudyQuestion, source: str) -> Path | None:
    """The folder of the run that a question is asked of; None: of a recipe.

    Raises:
        FolderError: the folder holds no run.
    """
    if not question.of_runs or not Path(source).is_dir():
        return None
    if not holds_run(Path(source)):
        raise FolderError(f"{source}: holds no run; give the folder of a run, or a recipe")
    return Path(source)


def _cluster(options: argparse.Namespace) -> Cluster | None:
    """What is asked of the cluster that the runs go to; None: they stay on this machine."""
    if options.launcher == "slurm":
        return cluster_from(options.slurm)
    if options.slurm:
        raise UsageError(f"--slurm {options.slurm[0]}: is for --launcher slurm; add it, or leave --slurm out")
    return None


def _counter(data: Path | None) -> Callable[[Recipe], int]:
    """Counts a recipe's training images; opens each data set once."""
    counts: dict[str, int] = {}

    def count_images(recipe: Recipe) -> int:
        entry = recipe.data.model_dump_json()
        if entry not in counts:
            from batchscale.build.inputs import load_data

            counts[entry] = len(load_data(recipe, data).train)
        return counts[entry]

    return count_images


def _open(options: argparse.Namespace, kind: str, case: Case[Any], data: Path | None, cluster: Cluster | None) -> Study:
    """The study of these options, to be entered."""
    from batchscale.study.runner.study import Study

    of_any_recipe = case.question.of_recipe is None
    check_alone("study" if of_any_recipe else kind)
    out = options.out or default_folder(options, f"{case.recipe_name}-{kind}" if of_any_recipe else kind)
    words = command_words(options) if of_any_recipe else this_command(options.typed)
    if options.out is None:
        print(shown(f"the study's folder: {out}"), file=sys.stderr, flush=True)
        words = [*words, "--out", str(out)]
    return Study(
        out,
        kind,
        case.recipe_name,
        case.recipe,
        {"overrides": list(case.overrides), **case.question.model_dump(mode="json")},
        words,
        jobs=1 if case.question.measures_time(case.recipe) else options.jobs,
        cluster=cluster,
        data_folder=data,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )


def print_warnings(findings: Findings) -> None:
    """On standard error."""
    for line in findings.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def print_answer(options: argparse.Namespace, answered: Answered) -> int:
    """Print the tables and the answer; the exit code."""
    from batchscale.records.text import as_text

    findings = answered.findings
    print_warnings(findings)
    if options.json:
        rows = [outcome.row() for outcome in answered.outcomes]
        print_json({"rows": rows, **findings.result, "answer": findings.answer})
        return answered.exit_code
    for table in findings.tables:
        print(f"\n{table.title}\n{as_text(table)}")
        if table.caption:
            print(textwrap.fill(table.caption, _COLUMNS, initial_indent="  ", subsequent_indent="  "))
    places = shown(f"{answered.page}: the figures; {answered.out}/table.csv")
    print(f"\n{findings.answer}\n{places}: one row a run")
    return answered.exit_code
