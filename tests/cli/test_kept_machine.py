"""What a benchmark measured is kept for plans of this machine; a place that cannot be written fails no benchmark."""

from types import SimpleNamespace

import pytest

from batchscale.bench import step
from batchscale.cli import main
from batchscale.cost.clusters.cluster import read_cluster

DOCUMENT = {
    "recipe": "fashion-mnist-cnn",
    "processes": 2,
    "minibatch": {"workers": 16, "per_worker": 32, "images": 512},
    "rows": [{"name": "batchscale", "images_per_second": 1000.0, "images_per_cpu_second": 500.0, "iqr": 1.0}],
    "conditions": {"cpu": "a processor", "cores": 2, "torch": "2", "date": "2026-11-30T10", "load_average": 0.5},
}


@pytest.fixture(autouse=True)
def measured(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(step, "bench_step", lambda *arguments, **options: SimpleNamespace(result=DOCUMENT))


def test_bench_step_keeps_the_rate_of_a_core(capsys):
    assert main(["bench", "step", "--json"]) == 0
    assert "this-machine" in capsys.readouterr().err
    (rate,) = read_cluster("this-machine").rates
    assert (rate.net, rate.value, rate.per_device) == ("cnn-1x28x28", 500.0, 256)


def test_a_place_that_cannot_be_written_is_a_note(capsys, tmp_path):
    (tmp_path / "cache").write_text("")
    assert main(["bench", "step", "--json"]) == 0
    assert "note: not kept" in capsys.readouterr().err
