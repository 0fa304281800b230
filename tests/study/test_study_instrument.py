"""What is compared is measured alike: recomputed statistics where a run of a study has few steps."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from support.cases import case_of

from batchscale.recipe import load_recipe
from batchscale.records import Result
from batchscale.study.evidence.instrument import lagging
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.steps_to_target.search import search_of
from batchscale.study.studies import cells_of


def asked(kind, largest, *overrides):
    """Cells of a study of digits-cnn (30 epochs of 1,437 images) whose largest minibatch is given."""
    fields = {
        "minibatch-error": {"minibatches": (32, largest), "rules": "linear"},
        "warmup": {"minibatch": largest, "kinds": "none"},
        "scaling": {"processes": (1, largest // 32), "mode": "weak"},
    }[kind]
    return cells_of(kind, case_of(kind, overrides=overrides, seeds=1, **fields))


@pytest.mark.parametrize("kind", ["minibatch-error", "warmup", "scaling"])
def test_all_runs_recompute_where_one_has_fewer_than_fifty_steps(kind):
    running = {
        (largest, *overrides): [cell.recipe.batch_norm.running for cell in asked(kind, largest, *overrides)]
        for largest, *overrides in [(1024,), (512,), (1024, "batch_norm.running=none")]
    }
    assert set(running[1024,]) == {"recomputed"}  # 43 steps at 1,024: those of 32 are measured alike
    assert set(running[512,]) == {"averages"}  # 85
    assert set(running[1024, "batch_norm.running=none"]) == {"none"}  # as the user has chosen


def test_steps_to_target_always_recomputes():
    case = case_of(
        "steps-to-target", overrides=["data.holdout=137"], goal="error<5", minibatches=(32,), trials=1, lr="0.1..1"
    )
    assert search_of(case).steps_per_epoch(32) == Fraction(1300, 32)
    assert [cell.recipe.batch_norm.running for cell in cells_of("steps-to-target", case)] == ["recomputed"]


def test_a_grid_warns_of_runs_whose_evaluation_lags():
    recipe = load_recipe("digits-cnn")
    result = Result(
        status="done", recipe="digits-cnn", folder="", test_error_percent=1.0, test_error_median_last_5=1.0,
        test_loss=1.0, train_loss=1.0, steps=43, epochs=30.0, images_per_second=1.0, wall_seconds=1.0,
        weights_sha256="", processes=1, workers=1, per_worker=32,
    )  # fmt: skip
    few = Outcome(Cell({}, recipe), Path(), "done", result)
    many = dataclasses.replace(few, result=result.model_copy(update={"steps": 50}))
    own = recipe.batch_norm.model_copy(update={"running": "recomputed"})
    recomputed = dataclasses.replace(few, cell=Cell({}, recipe.model_copy(update={"batch_norm": own})))
    assert lagging([few])[0].startswith("1 run of fewer than 50 steps evaluated by batch norm's running averages")
    assert lagging([many, recomputed]) == ()
