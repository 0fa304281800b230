"""The demonstration: a large minibatch fails naively and succeeds by the rules, on scikit-learn's digits.

Four ways to train the same net for the same epochs, a few seeds each: a small minibatch (the reference), a
large one with the lr left as it was, a large one with the lr scaled linearly at once, and a large one by the
rules (linear scaling, gradual warmup). Source: Goyal et al. 2017, section 2 and table 2a.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscale.build.build import validate
from batchscale.recipe import load_recipe
from batchscale.records import Result
from batchscale.records.command import repetition
from batchscale.records.folder import check_free
from batchscale.run.job import Job
from batchscale.run.run import train_here

RECIPE = "digits-cnn"
_LARGE = 32  # workers of 32 images: kn = 1,024 of 1,437 training images
_COMMON = ("numerics.threads=1", "batch_norm.running=recomputed")  # 43 steps at kn = 1,024: averages would lag


@dataclass(frozen=True)
class Way:
    """One way to train: name, words for people, overrides of the recipe."""

    name: str
    about: str
    overrides: tuple[str, ...]


WAYS = (
    Way("small", "small minibatch, the reference", ("learning_rate.warmup.kind=none",)),
    Way(
        "unscaled",
        "large minibatch, lr left unscaled",
        (f"minibatch.workers={_LARGE}", "learning_rate.scaling=none", "learning_rate.warmup.kind=none"),
    ),
    Way(
        "no-warmup",
        "large minibatch, lr scaled, no warmup",
        (f"minibatch.workers={_LARGE}", "learning_rate.warmup.kind=none"),
    ),
    Way("rules", "large minibatch by the rules: lr scaled, gradual warmup", (f"minibatch.workers={_LARGE}",)),
)


def run_demo(out: Path, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Train every way with every seed.

    Args:
        out: a new or empty folder; gets one folder a run.
        seeds: 0, 1, ... of each way.
        say: told of every run that ends.

    Returns:
        {"rows": [{"name", "about", "minibatch", "lr", "seed", "status", "test_error_percent", "folder"}],
        "ways": [{"name", "about", "minibatch", "lr", "mean_error_percent", "errors", "diverged"}]};
        no mean where a run diverged, whose error is None.

    Raises:
        FolderError: the folder is in use.
    """
    check_free(out)
    rows = list(_runs(out, seeds, say))
    return {"rows": rows, "ways": [_summary(way, [r for r in rows if r["name"] == way.name]) for way in WAYS]}


def _runs(out: Path, seeds: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        for way in WAYS:
            recipe = load_recipe(RECIPE, [*_COMMON, *way.overrides, f"seed={seed}"])
            folder = out / f"{way.name}-seed{seed}"
            job = Job(RECIPE, recipe, folder, quiet=True, command=repetition(folder, 1, None))
            if not seed:
                validate(recipe, None, 1)
            result = train_here(job)
            factor = recipe.minibatch.workers if recipe.learning_rate.scaling == "linear" else 1
            say(f"{way.about}, seed {seed}: {_said(result)}, {result.wall_seconds:.1f} s")
            yield {
                "name": way.name,
                "about": way.about,
                "minibatch": recipe.minibatch.workers * recipe.minibatch.per_worker,
                "lr": recipe.learning_rate.reference * factor,
                "seed": seed,
                "status": result.status,
                "test_error_percent": result.test_error_percent,
                "folder": str(folder),
            }


def _summary(way: Way, rows: list[dict[str, Any]]) -> dict[str, Any]:
    diverged = sum(r["status"] == "diverged" for r in rows)
    errors = [None if r["status"] == "diverged" else r["test_error_percent"] for r in rows]
    known = [error for error in errors if error is not None]
    return {
        "name": way.name,
        "about": way.about,
        "minibatch": rows[0]["minibatch"],
        "lr": rows[0]["lr"],
        "mean_error_percent": statistics.fmean(known) if known and not diverged else None,
        "errors": errors,
        "diverged": diverged,
    }


def _said(result: Result) -> str:
    if result.status == "diverged":
        return "diverged"
    return "no test error" if result.test_error_percent is None else f"{result.test_error_percent:.2f} % test error"
