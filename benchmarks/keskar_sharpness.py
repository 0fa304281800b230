"""Keskar et al. 2016, table 3, shortened: a small and a large minibatch, their sharpness beside the published one.

    python benchmarks/keskar_sharpness.py f1|c1 --data DIR --out DIR [--batch-norm recomputed] [--tiny]

Trains the two runs (those that have ended in OUT stay), measures both over the same examples, and prints Keskar's form
in the full space beside the paper's, the adaptive form, and the test errors. Either net takes up to 20 minutes on two
quiet cores; --tiny takes a minute or two, and says nothing but that all works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """One net of the paper, and what is run here in place of it.

    Attributes:
        recipe: shipped.
        common: overrides of both runs.
        small, large: kn; the large one is a tenth of the training images, as in the paper.
        measured: words of `measure sharpness`.
        published: sharpness in percent at epsilon 1e-3 in the full space, and test accuracy in percent: small, large.
    """

    recipe: str
    common: tuple[str, ...]
    small: int
    large: int
    measured: tuple[str, ...]
    published: tuple[tuple[float, float], tuple[float, float]]


SETTINGS = {
    "f1": Setting(
        "keskar-f1-mnist",
        ("epochs=20",),
        256,
        6000,
        ("--examples", "5000", "--repeats", "3"),
        ((1.23, 98.03), (205.0, 97.81)),
    ),
    "c1": Setting(
        "keskar-c1-cifar10",
        ("epochs=15", "data.train_fraction=0.1"),
        256,
        500,
        ("--examples", "500", "--repeats", "2"),
        ((28.58, 80.04), (707.23, 77.26)),
    ),
}
TINY = {
    "f1": ("epochs=1", "data.train_fraction=0.1"),
    "c1": ("epochs=1", "data.train_fraction=0.01"),
}
TINY_MEASURED = ("--examples", "100", "--space", "full", "--epsilon", "1e-3", "--iterations", "3")


def batchscale(*words: str) -> str:
    """What the command prints on standard output."""
    command = [sys.executable, "-m", "batchscale", *words]
    print(" ".join(["batchscale", *words]), file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(setting: Setting, folder: Path, minibatch: int, common: tuple[str, ...], data: str) -> None:
    """One run, unless it has ended."""
    if not (folder / "result.json").exists():
        words = (*common, f"minibatch.per_worker={minibatch}", "execution.evaluation_epochs=5")
        resume = ("--resume=auto",)
        batchscale("train", setting.recipe, *words, "--data", data, "--out", str(folder), *resume, "--json")


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=SETTINGS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--processes", default="2", help="that measure (default 2)")
    parser.add_argument("--batch-norm", choices=("averages", "recomputed"), default="averages")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    setting = SETTINGS[options.net]
    common, measured = (TINY[options.net], TINY_MEASURED) if options.tiny else (setting.common, setting.measured)
    folders = [options.out / f"{options.net}-kn{minibatch}" for minibatch in (setting.small, setting.large)]
    for folder, minibatch in zip(folders, (setting.small, setting.large), strict=True):
        train(setting, folder, minibatch, common, options.data)
    shared = ("--processes", options.processes) if options.processes != "1" else ()
    out = options.out / f"{options.net}-sharpness-{options.batch_norm}"
    words = (*map(str, folders), *measured, "--batch-norm", options.batch_norm)
    words = (*words, "--data", options.data, "--out", str(out), *shared)
    report(json.loads(batchscale("measure", "sharpness", *words, "--json")), setting)


def report(document: dict, setting: Setting) -> None:
    """Both runs below each other, the paper's numbers beside them."""
    print(f"{'kn':>6} {'form':9} {'space':9} {'epsilon':>8} {'sharpness, %':>13} {'interval':>22} {'published':>10}")
    published = {setting.small: setting.published[0], setting.large: setting.published[1]}
    runs = {run["run"]: run for run in document["runs"]}
    for row in document["rows"]:
        minibatch = runs[row["run"]]["minibatch"]
        keskars = row["form"] == "keskar" and row["subspace"] is None and row["epsilon"] == 1e-3
        paper = f"{published[minibatch][0]:g}" if keskars else "-"
        interval = "-" if row["interval"] is None else "{:.4g} to {:.4g}".format(*row["interval"])
        space = "full" if row["subspace"] is None else f"{row['subspace']} dims"
        place = f"{minibatch:6} {row['form']:9} {space:9} {row['epsilon']:8g}"
        print(f"{place} {row['sharpness']:13.4g} {interval:>22} {paper:>10}")
    for run in runs.values():
        error, paper = run["test_error_percent"], 100 - published[run["minibatch"]][1]
        print(f"kn {run['minibatch']}: loss {run['loss']:.4g}, test error {error:.2f} % (published {paper:.2f} %)")
    print(document["answer"])


if __name__ == "__main__":
    main()
