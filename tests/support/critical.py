"""Made-up folders that say something of the critical minibatch, as the commands write them."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from batchscale.records.findings import Findings

RECIPE = {
    "data": {"name": "tinyshakespeare", "sequence": 64, "holdout": 0},
    "task": "language",
    "model": {"name": "transformer", "options": {"width": 64}},
    "minibatch": {"workers": 2, "per_worker": 8},
    "optimizer": {"name": "adamw", "weight_decay": 0.1},
    "learning_rate": {"reference": 0.002},
    "epochs": 2.0,
    "seed": 0,
}
"""kn = 16."""


def changed(**groups):
    """The recipe with other entries of some groups."""
    return {**RECIPE, **{name: {**RECIPE[name], **entries} for name, entries in groups.items()}}


def write_findings(folder: Path, kind: str, result: dict, recipe: dict | None = RECIPE, warnings=()) -> Path:
    """The folder of a study, or of a measure, with this answer."""
    folder.mkdir(parents=True, exist_ok=True)
    Findings(
        kind=kind, title="t", recipe="shakespeare-transformer", asked="a", answer="b", command=("batchscale",),
        result=result, warnings=tuple(warnings),
    ).write(folder)  # fmt: skip
    if recipe is not None:
        (folder / "study.json").write_text(json.dumps({"kind": kind, "reference": recipe}))
    return folder


def whole_run(minibatch, low, high, **more) -> dict:
    """The answer of study steps-to-target."""
    entry = {"step": None, "definition": "half_efficiency", "minibatch": minibatch, "interval": [low, high]}
    return {"critical": [entry | more]}


def branched(*rows, rule="sqrt", **more) -> dict:
    """The answer of study branch, from rows of (step, B_crit, low, high): kn = 16."""
    critical = []
    for step, minibatch, low, high in rows:
        place = {"step": step, "examples_seen": 16 * step, "rule": rule, "settled": True}
        shifted = [None if end is None else end + 32 for end in (minibatch, low, high)]
        critical.append({**place, "definition": "no_loss", "minibatch": 32, "interval": [32, None]})
        critical.append({
            **place, "definition": "half_efficiency", "minibatch": shifted[0], "interval": shifted[1:],
            "b_crit": minibatch, "b_crit_interval": [low, high], **more,
        })  # fmt: skip
    return {"rows": [], "critical": critical, "reference_minibatch": 16}


def noise(minibatch, low, high, **more) -> dict:
    """The answer of measure noise-scale, or result.json's noise_scale."""
    return {
        "noise_scale": minibatch, "interval": [low, high], "gradient_squared": 1.0, "trace": minibatch,
        "resolved": high is not None, **more,
    }  # fmt: skip


def write_run(folder: Path, measured: dict | None, recipe: dict = RECIPE, lines=()) -> Path:
    """The folder of a run that measured its noise scale, with (step, noise scale) of its lines."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    written = [json.dumps({"step": step, "minibatch": 16, "noise_scale": scale}) + "\n" for step, scale in lines]
    (folder / "metrics.jsonl").write_text("".join(written))
    result = {
        "status": "done", "recipe": "shakespeare-transformer", "folder": "", "test_error_percent": None,
        "test_error_median_last_5": None, "test_loss": 1.0, "train_loss": 1.0, "steps": 100, "epochs": 2.0,
        "images_per_second": None, "wall_seconds": 1.0, "weights_sha256": None, "processes": 1, "workers": 2,
        "per_worker": 8, **({"noise_scale": measured} if measured else {}),
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder
