"""Real frameworks do the same work as batchscale: each where its environment exists."""

import os
from pathlib import Path

import pytest

from batchscale.bench import rounds
from batchscale.bench.documents import FrameworksDocument
from batchscale.bench.frameworks import contenders
from batchscale.bench.frameworks.measure import bench_frameworks
from batchscale.bench.rounds import Budget
from batchscale.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENTS = ROOT / "build" / "frameworks"
SHARED = Path(os.environ.get("BATCHSCALE_DATA", ROOT / ".." / "shared" / "data"))
_QUICK = Budget(total_seconds=0.0, block_seconds=0.02, min_rounds=2, max_rounds=2)
_TRAINED_ALIKE = {"ddp": 2e-3, "jax": 2e-3, "tensorflow": 5e-3}
"""Of a mean loss after an epoch by Adam, of which rounding differs; Keras holds epsilon elsewhere."""


def measured(monkeypatch, recipe, name, data):
    kinds = [kind for kind in contenders.KINDS if kind.name in ("batchscale", name)]
    if not kinds[1].interpreter(ENVIRONMENTS).exists():
        pytest.skip(f"no environment of {name}: make frameworks")
    monkeypatch.setattr(contenders, "KINDS", kinds)
    monkeypatch.setattr(rounds, "_WARM_SECONDS", 0.1)
    found = bench_frameworks(recipe, "tiny", data, [2], environments=ENVIRONMENTS, budget=_QUICK)
    return FrameworksDocument.model_validate(found.result)


def check(document, name):
    assert not [note for note in document.notes if note.startswith("left out")]
    shown = [a for a in document.agreement if a.name == name]
    assert [(a.optimizer, a.agrees) for a in shown] == [("sgd", True), ("adam", True)], shown
    assert shown[0].largest_difference <= 1e-4
    rows = {(row.name, row.series): row for row in document.rows}
    assert len(rows) == 4
    for series in ("weak", "strong"):
        other, ours = rows[name, series], rows["batchscale", series]
        assert other.loss == pytest.approx(ours.loss, abs=_TRAINED_ALIKE[name])
        assert other.examples_per_second > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "jax", "tensorflow"])
def test_the_cnn_is_trained_alike(monkeypatch, name):
    adam = ["optimizer={name: adamw}", "learning_rate={reference: 0.001, reference_minibatch: 32}"]
    check(measured(monkeypatch, load_recipe("digits-cnn", ["data.train_images=640", *adam]), name, None), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "jax", "tensorflow"])
@pytest.mark.skipif(not (SHARED / "nuclei_dsb2018").is_dir(), reason="no nuclei_dsb2018 below BATCHSCALE_DATA")
def test_the_u_net_is_trained_alike(monkeypatch, name):
    small = ["data.train_images=16", "model.options={width: 2, levels: 3}", "minibatch.per_worker=4"]
    check(measured(monkeypatch, load_recipe("nuclei-unet", small), name, SHARED), name)
