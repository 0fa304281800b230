"""batchscale bench frameworks: the weak and the strong series of every framework that is here, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchscale.bench.documents import Agreement, FrameworkRow, FrameworksDocument
from batchscale.bench.frameworks.comparable import comparable
from batchscale.bench.frameworks.contenders import FrameworkContender, FrameworkKind, FrameworkWork, available
from batchscale.bench.frameworks.export import export
from batchscale.bench.frameworks.findings import findings_of_frameworks
from batchscale.bench.frameworks.proof import prove
from batchscale.bench.frameworks.published import published_rows
from batchscale.bench.frameworks.series import LogitsScorer, measure_point, points_of, with_efficiency
from batchscale.bench.frameworks.settings import TrainingSettings, check_sizes
from batchscale.bench.results import machine_conditions
from batchscale.bench.rounds import Budget, Measured, Rounds
from batchscale.bench.turns import stop_check
from batchscale.build.build import validate
from batchscale.build.tasks import make_task
from batchscale.errors import ProcessError, UsageError
from batchscale.launch.signals import StopSignals
from batchscale.recipe import Recipe
from batchscale.records.findings import Findings
from batchscale.system.cores import available_cores
from batchscale.system.temporary import temporary_folder

BUDGET = Budget(total_seconds=0.0, block_seconds=2.0, min_rounds=5, max_rounds=5)
_THREADS = 1  # of a process: it stands for a device


@dataclass
class _Bench:
    """What all points share, and what they have given so far."""

    settings: TrainingSettings
    scorer: LogitsScorer
    scratch: Path
    environments: Path
    check: Callable[[], None]
    say: Callable[[str], None]
    budget: Budget
    epochs: int
    notes: list[str]
    versions: dict[str, str] = field(default_factory=dict)
    agreement: list[Agreement] = field(default_factory=list)
    rows: list[FrameworkRow] = field(default_factory=list)

    def over(self, work: FrameworkWork, kinds: Sequence[FrameworkKind]) -> None:
        """All that is asked of W processes: start, prove, then every point."""
        rounds, processes = Rounds((), self.notes, self.say), work.processes
        try:
            for kind in kinds:
                self.say(f"starting {kind.name} over {processes}")
                contender = FrameworkContender(kind, work, self.scratch, self.check, self.environments)
                measured = Measured(contender)
                rounds.running.append(measured)
                with rounds.may_fail(measured):
                    contender.begin()
                    self.versions[kind.name] = str(contender.notes.get("version"))
            self.say(f"proving that the work is the same over {processes}")
            self.agreement += prove(rounds, self.settings, processes)
            for point in points_of(self.settings.minibatch, processes):
                self.say(f"{' and '.join(point.series)} series: {processes} x {point.per_process}")
                self.rows += measure_point(rounds, self.settings, point, self.budget, self.epochs, self.scorer)
        finally:
            rounds.close()


def bench_frameworks(
    recipe: Recipe,
    name: str,
    data_folder: Path | None,
    processes: Sequence[int],
    *,
    overrides: Sequence[str] = (),
    epochs: int = 1,
    environments: Path,
    budget: Budget = BUDGET,
    say: Callable[[str], None] = lambda line: None,
    keep: Callable[[Findings], None] = lambda findings: None,
) -> Findings:
    """Compare all frameworks that are here on this recipe.

    Args:
        recipe: resolved.
        name: of the recipe, for the document.
        data_folder: of the data sets.
        processes: W, every one of them.
        overrides: of the recipe, for the document.
        epochs: to train in every point, for loss and score; 0: none.
        environments: the folder that ``make frameworks`` fills.
        budget: of the rounds of a point.
        say: told of the progress.
        keep: given what is known after every W but the last.

    Returns:
        Its result is the document of ``batchscale bench frameworks --json``.

    Raises:
        UsageError: a recipe that not every framework can train.
        BenchStopped: a signal to stop was received.
        ProcessError: not one contender could be measured.
    """
    processes = sorted(set(processes))
    recipe, notes = comparable(recipe, processes)
    dataset = validate(recipe, data_folder, 1)
    kinds, missing = available(environments)
    for note in missing:
        say(note)
    with StopSignals() as signals, temporary_folder("batchscale-bench-") as scratch:
        settings = TrainingSettings(recipe, len(dataset.train), Path(scratch))
        if unfit := check_sizes(settings.minibatch, processes, len(dataset.train)):
            raise UsageError(unfit)
        say("writing weights and examples for all")
        scorer = LogitsScorer(make_task(recipe, dataset), export(recipe, dataset, Path(scratch)), Path(scratch))
        bench = _Bench(
            settings, scorer, Path(scratch), environments, stop_check(signals), say, budget, epochs, [*notes, *missing]
        )
        work = FrameworkWork(
            scratch, recipe.model.name, recipe.model_dump(mode="json"),
            str(data_folder.resolve()) if data_folder else None, 1, _THREADS,
        )  # fmt: skip
        for count in processes:
            bench.over(work.over(count), kinds)
            if bench.rows and count != processes[-1]:
                keep(findings_of_frameworks(_document(name, overrides, processes[: processes.index(count) + 1], bench)))
    if not bench.rows:
        raise ProcessError(f"bench frameworks: nothing could be measured: {'; '.join(bench.notes)}")
    return findings_of_frameworks(_document(name, overrides, processes, bench))


def _document(name: str, overrides: Sequence[str], processes: list[int], bench: _Bench) -> FrameworksDocument:
    task = bench.scorer.task
    kind = task.score_kinds[0]
    return FrameworksDocument(
        recipe=name,
        overrides=list(overrides),
        processes=processes,
        oversubscribed=[count for count in processes if count * _THREADS > available_cores()],
        minibatch=bench.settings.minibatch,
        training_examples=bench.settings.training_images,
        epochs=bench.epochs,
        score={"name": kind.name, "unit": kind.unit, "better": kind.better},
        agreement=bench.agreement,
        rows=with_efficiency(bench.rows),
        published=published_rows(),
        conditions={
            **machine_conditions(),
            "threads": _THREADS,
            "examples": task.examples,
            "rounds": bench.budget.min_rounds,
            "versions": bench.versions,
        },
        notes=bench.notes,
    )
