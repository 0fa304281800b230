"""What `plan --goal` and `--critical` name -> the epochs of a plan's goal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchscale.cost.planning.goal import CriticalEstimate, EpochGoal, critical_by_hand
from batchscale.cost.planning.published import PublishedWorkload, shipped_workloads, workload_like
from batchscale.cost.planning.question import Trained
from batchscale.cost.ranges import EPOCHS
from batchscale.errors import DataError, UsageError
from batchscale.recipe import Recipe
from batchscale.words import shown


def goal_of(text: str | None, critical: str | None, trained: Trained, recipe: Recipe) -> EpochGoal:
    """The goal.

    Args:
        text: of --goal: None, a number of epochs, a workload or TABLE.csv:WORKLOAD, or a folder.
        critical: of --critical.
        trained: the recipe, as a plan sees it.
        recipe: itself.

    Raises:
        UsageError: it is none of these, or says nothing of the epochs.
    """
    by_hand = None if critical is None else critical_by_hand(critical)
    stated = _number(text)
    if text is not None and stated is None and by_hand is not None:
        raise UsageError(
            f"--critical={critical} and --goal={shown(text)} both say the critical minibatch; leave one out"
        )
    if text is None or stated is not None:
        alike = workload_like(recipe.data.name, recipe.model.name)
        estimate = alike.critical_estimate() if by_hand is None and alike is not None else by_hand
        return _of_recipe(trained, stated or recipe.epochs, estimate, alike if by_hand is None else None)
    if Path(text).is_dir():
        return _of_recipe(trained, recipe.epochs, _critical_of_folder(Path(text)))
    return _workload(text).goal(trained)


def doubts_of(goal: EpochGoal, text: str | None, critical: str | None, trained: str, recipe: Recipe) -> Iterator[str]:
    """That another's critical minibatch, or another's epochs, stand in for the recipe's own."""
    if text is not None and _number(text) is None and Path(text).is_dir():
        yield from _of_another(Path(text), trained, recipe)
    if goal.workload:
        alike = workload_like(recipe.data.name, recipe.model.name)
        if alike is None or alike.benchmark != goal.workload:
            yield (
                f"--goal={shown(text or '')}: its epochs are those of {shown(goal.workload)}, not known to be what "
                f"{trained} trains ({recipe.model.name} on {recipe.data.name}); check that net, data and goal are the "
                f"same"
            )
    if goal.critical is not None and critical is None and (text is None or _number(text) is not None):
        yield (
            f"epochs at other minibatches go by the published critical minibatch of {goal.critical.words}, the same "
            f"net and data by another optimizer to another goal; give --goal or --critical of this recipe"
        )


def _of_another(folder: Path, trained: str, recipe: Recipe) -> Iterator[str]:
    """That a folder measured the critical minibatch of another net, or on other data."""
    from batchscale.report.critical.sources import read_source

    source = read_source(folder)
    own = {"model.name": recipe.model.name, "data.name": recipe.data.name}
    others = [f"{name}={source.entries[name]}" for name in own if source.entries.get(name, own[name]) != own[name]]
    if others:
        yield (
            f"--goal={shown(str(folder))}: its critical minibatch is that of {shown(source.recipe)} "
            f"({', '.join(others)}), not of what {trained} trains ({recipe.model.name} on {recipe.data.name}); measure "
            f"it on this recipe"
        )


def _of_recipe(
    trained: Trained, epochs: float, critical: CriticalEstimate | None, alike: PublishedWorkload | None = None
) -> EpochGoal:
    studied = None if alike is None else (alike.smallest, alike.largest)
    words = f"{epochs:g} epochs of {trained.recipe}"
    return EpochGoal(words, trained.minibatch, epochs, critical=critical, studied=studied)


def _number(text: str | None) -> float | None:
    """Epochs; None where the text is no number.

    Raises:
        UsageError: out of range.
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not EPOCHS.holds(value):
        raise UsageError(f"--goal={text}: {EPOCHS.rule}; correct it, or leave it out")
    return value


def _workload(text: str) -> PublishedWorkload:
    """A shipped workload, or one of a table.

    Raises:
        UsageError: there is none.
    """
    if text in shipped_workloads() and not Path(text).exists():
        return shipped_workloads()[text]
    file, colon, name = text.rpartition(":")
    path, name = (Path(text), "") if not colon or Path(text).is_file() else (Path(file), name)
    if not path.exists():
        raise UsageError(
            f"--goal={shown(text)}: no number of epochs, no folder, no table and no shipped workload "
            f"({', '.join(shipped_workloads())}); give for example 90, studies/mine, or table.csv:WORKLOAD"
        )
    from batchscale.cost.planning.fitted import workload_of_table

    return workload_of_table(path, name)


def _critical_of_folder(folder: Path) -> CriticalEstimate:
    """B_crit of a study's or a measure's folder, or of a run that measured its noise scale; over a run the mean."""
    from batchscale.report.critical.readings import mean_over_run
    from batchscale.report.critical.sources import read_source

    source = read_source(folder)
    along = [reading for reading in source.readings if reading.seen is not None]
    whole = [reading for reading in source.readings if reading.seen is None]
    if not (along or whole):
        raise DataError(f"--goal={shown(str(folder))}: says no critical minibatch; give another, or --critical B")
    reading = whole[0] if whole else mean_over_run(sorted(along, key=lambda one: one.seen or 0), source.minibatch)
    if reading.minibatch is None or reading.minibatch <= 0:
        raise DataError(
            f"--goal={shown(str(folder))}: its critical minibatch is not resolved ({reading.text}), so no epochs at "
            f"other minibatches can be said; measure it with more examples, or give --critical B"
        )
    low = reading.low if reading.low is not None and reading.low > 0 else None
    return CriticalEstimate(reading.minibatch, low, reading.high, f"{reading.name} of {folder}")
