"""A study made by hand: 8 minibatches x 4 rules x 3 seeds, its findings and 96 small run folders."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from batchscale.records.findings import Axis, Figure, Findings, Mark, Series, Table

MINIBATCHES = tuple(64 << place for place in range(8))
RULES = {"linear, warmup": (2.0, 3000), "linear, no warmup": (2.0, 900), "square root": (2.2, 1500), "none": (2.1, 350)}
SEEDS = (0, 1, 2)


def error_percent(rule: str, minibatch: int, seed: int) -> float:
    """A made-up error: flat up to the rule's elbow, rising beyond it."""
    floor, elbow = RULES[rule]
    jitter = 0.35 * math.sin(12.9898 * minibatch + 78.233 * seed + len(rule))
    return round(floor + 1.1 * math.log2(1 + (minibatch / elbow) ** 2) + jitter, 3)


def environment(**more: Any) -> dict[str, Any]:
    return {
        "time": "2026-11-20T10:00:00+0000",
        "command": ["batchscale", "train", "fashion-mnist-cnn", "--out", "runs/x"],
        "versions": {"python": "3.11.7", "batchscale": "0.1.0", "torch": "2.15.0"},
        "host": "bench-1",
        "cpu": "AMD EPYC",
        "cores": 16,
        "git_commit": "cba0a155b9e0717abbffaaa1a474955703d188da",
        "processes": 2,
        **more,
    }


def write_run(folder: Path, rule: str, minibatch: int, seed: int, name: str = "fashion-mnist-cnn") -> None:
    """One small run folder."""
    folder.mkdir(parents=True)
    recipe = {
        "data": {"name": "fashion_mnist", "holdout": 0},
        "minibatch": {"workers": minibatch // 32, "per_worker": 32},
        "epochs": 10.0,
        "learning_rate": {
            "reference": 0.05,
            "scaling": rule.split(",")[0],
            "warmup": {"epochs": 0 if "no" in rule else 2},
        },
        "seed": seed,
    }
    (folder / "recipe.yaml").write_text(f"# {name}\n" + yaml.safe_dump(recipe, sort_keys=False))
    (folder / "environment.json").write_text(json.dumps(environment(host=f"bench-{1 + seed}", earlier=[])))
    steps = 600_000 // minibatch
    line = {"step": steps, "epoch": 10.0, "loss": 0.1, "lr": 0.05, "minibatch": minibatch, "images_per_second": 9000.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    diverged = rule == "none" and minibatch == MINIBATCHES[-1]
    result = {
        "status": "diverged" if diverged else "done",
        "recipe": name,
        "folder": str(folder),
        "test_error_percent": None if diverged else error_percent(rule, minibatch, seed),
        "test_error_median_last_5": None if diverged else error_percent(rule, minibatch, seed),
        "test_loss": None if diverged else 0.31,
        "train_loss": None if diverged else 0.12,
        "steps": steps,
        "epochs": 10.0,
        "images_per_second": 9000.0,
        "wall_seconds": 67.2,
        "weights_sha256": "dd28dc6639a4c67c5d6e959323fcc18e70e1939758e705ba82d8e504d69c8bc9",
        "processes": 2,
        "workers": minibatch // 32,
        "per_worker": 32,
        "diverged_at_step": 41 if diverged else None,
    }
    (folder / "result.json").write_text(json.dumps(result))


def key(rule: str, minibatch: int, seed: int) -> str:
    return f"kn{minibatch}-seed{seed}-{hashlib.sha256(rule.encode()).hexdigest()[:12]}"


def write_study(folder: Path, title: str = "Minibatch size against test error, fashion-mnist-cnn") -> Findings:
    """The study's folder: findings.json and its runs."""
    rows, series = [], []
    for rule in RULES:
        middle, low, high, runs = [], [], [], []
        for minibatch in MINIBATCHES:
            diverged = rule == "none" and minibatch == MINIBATCHES[-1]
            errors = [error_percent(rule, minibatch, seed) for seed in SEEDS]
            for seed, error in zip(SEEDS, errors, strict=True):
                name = f"runs/{key(rule, minibatch, seed)}"
                write_run(folder / name, rule, minibatch, seed)
                rows.append({
                    "minibatch": minibatch, "rule": rule, "seed": seed, "status": "diverged" if diverged else "done",
                    "test_error_percent": None if diverged else error, "folder": name,
                })  # fmt: skip
            runs.append(f"runs/{key(rule, minibatch, 0)}")
            middle.append(None if diverged else median(errors))
            low.append(None if diverged else min(errors))
            high.append(None if diverged else max(errors))
        xs = tuple(map(float, MINIBATCHES))
        series.append(Series(name=rule, x=xs, y=tuple(middle), low=tuple(low), high=tuple(high), runs=tuple(runs)))
    findings = Findings(
        kind="minibatch-error",
        title=title,
        recipe="fashion-mnist-cnn",
        asked="Up to which minibatch does each rule for the learning rate keep the small minibatch's test error? "
        "60,000 images, 10 epochs, 3 seeds.",
        answer="Linear scaling with gradual warmup keeps the error of kn = 64 (2.0 %) up to kn = 2,048; "
        "without warmup, up to 512; unscaled, only up to 256.",
        command=("batchscale", "study", "minibatch-error", "fashion-mnist-cnn", "--seeds", "3", "--out", "my study"),
        rows=tuple(rows),
        figures=(_error_figure(tuple(series)), _steps_figure(), _curves_figure(), _published_figure()),
        tables=(_table(series),),
        warnings=("none at kn = 8192 diverged with every seed: it has no point in the figure",),
        result={"elbow": 2048},
        environment=environment(),
    )
    findings.write(folder)
    return findings


def _error_figure(series: tuple[Series, ...]) -> Figure:
    return Figure(
        id="error", title="Test error against minibatch size", x=Axis(label="minibatch kn, images", scale="log2"),
        caption="Median of three seeds; bars from the lowest to the highest.", y=Axis(label="test error, %"),
        series=series,
        marks=(Mark(label="elbow of linear, warmup", x=2048), Mark(label="tolerance", y=2.3)),
    )  # fmt: skip


def _steps_figure() -> Figure:
    xs = tuple(map(float, MINIBATCHES))
    steps = tuple(9000 * 64 / x * (1 + x / 1500) for x in xs)
    return Figure(
        id="steps", title="Steps to 3 % error", x=Axis(label="minibatch kn, images", scale="log2"),
        y=Axis(label="steps", scale="log2"), caption="Perfect scaling halves the steps when kn doubles.",
        series=(
            Series(name="measured", x=xs, y=steps),
            Series(name="perfect scaling", x=xs, y=tuple(9500 * 64 / x for x in xs), style="dashed"),
        ),
        marks=(Mark(label="diminishing returns", x=512, x_end=2048),),
    )  # fmt: skip


def _curves_figure() -> Figure:
    xs = tuple(10 * place / 4000 for place in range(1, 4001))
    return Figure(
        id="curves", title="Training loss", x=Axis(label="epoch"), y=Axis(label="loss", scale="log10"),
        caption="One seed each.",
        series=tuple(
            Series(
                name=f"kn = {minibatch}", x=xs, style="curve",
                y=tuple(2.3 * math.exp(-x / (2 + place)) + 0.05 + 0.01 * math.sin(211 * x + place) for x in xs),
            )
            for place, minibatch in enumerate((64, 512, 8192))
        ),
    )  # fmt: skip


def _published_figure() -> Figure:
    gpus = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)
    seconds = (192.63, 103.71, 53.59, 34.91, 27.59, 22.25, 17.89, 16.16)
    speedup = tuple(round(seconds[0] / s, 2) for s in seconds)
    return Figure(
        id="published", title="Weak scaling, published", x=Axis(label="GPUs"), y=Axis(label="speed-up"),
        caption="U-Net, PyTorch DDP.",
        series=(
            Series(name="pytorch_ddp", x=gpus, y=speedup),
            Series(name="ideal", x=gpus, y=gpus, style="dashed"),
        ),
    )  # fmt: skip


def _table(series: list[Series]) -> Table:
    return Table(
        title="Median test error, %",
        columns=("minibatch", *(s.name for s in series)),
        rows=tuple((kn, *(s.y[place] for s in series)) for place, kn in enumerate(MINIBATCHES)),
    )
