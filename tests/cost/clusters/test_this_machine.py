"""What benchmarks measure becomes a cluster file of this machine, which predicts what was measured."""

import json

import pytest

from batchscale.cost.clusters.cluster import machine_file, read_cluster
from batchscale.cost.clusters.this_machine import keep_all_reduces, keep_step
from batchscale.cost.step.all_reduce_time import all_reduce_seconds
from batchscale.cost.step.net_table import shipped_net
from batchscale.cost.step.step_time import step_time
from batchscale.errors import DataError

NET = "cnn-1x28x28"
CONDITIONS = {"cpu": "a processor", "cores": 2, "torch": "2.0", "date": "2026-11-30T10:00:00", "load_average": 0.5}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def step_document(processes=2, own=1000.0, **conditions):
    return {
        "recipe": "fashion-mnist-cnn",
        "processes": processes,
        "minibatch": {"workers": 16, "per_worker": 32, "images": 512},
        "rows": [{"name": "ceiling", "images_per_second": 1100.0}, {"name": "batchscale", "images_per_second": own}],
        "conditions": CONDITIONS | conditions,
    }


def all_reduce_document(processes=2, factor=1.0):
    rows = [
        {"algorithm": name, "bytes": size, "seconds": factor * (1e-5 + size * 1e-9)}
        for name in ("shared_memory", "builtin", "builtin_shipped")
        for size in (1 << 10, 1 << 16, 1 << 22)
    ]
    fit = {"alpha_seconds": 2e-6, "beta_seconds_per_byte": 1e-10}
    return {"processes": processes, "rows": rows, "fit": {"shared_memory": fit}, "conditions": CONDITIONS}


def test_before_anything_is_measured_it_says_how():
    with pytest.raises(DataError, match="bench step"):
        read_cluster("this-machine")


@pytest.mark.parametrize("first", ["step", "all-reduces"])
def test_what_calibrates_comes_back_in_either_order(first):
    if first == "step":
        keep_step(step_document(), NET)
    keep_all_reduces(all_reduce_document())
    if first != "step":
        keep_step(step_document(), NET)
    times = step_time(shipped_net(NET), read_cluster("this-machine"), [2, 4], 256, "shared_memory")
    assert times.total[0] == pytest.approx(512 / 1000, rel=1e-4)
    gradients = shipped_net(NET).gradient_bytes.sum()
    summing = 1e-5 + gradients * 1e-9
    assert times.exposed_communication[0] == pytest.approx(summing, rel=0.05)
    alone = 512 / 1000 - summing
    assert times.compute == pytest.approx([alone, 2 * alone], rel=1e-4)  # four share two cores
    assert times.exposed_communication[1] == pytest.approx(2 * 2e-6 + 2 * 3 / 4 * gradients * 1e-10)


def test_an_all_reduce_that_is_longer_than_the_step_takes_half_of_it_at_most():
    keep_all_reduces(all_reduce_document(factor=1e6))
    keep_step(step_document(), NET)
    assert read_cluster("this-machine").rates[0].value == pytest.approx(2 * 1000 / 2)


def test_all_reduces_of_other_counts_take_nothing_off():
    keep_step(step_document(), NET)
    keep_all_reduces(all_reduce_document(4))
    assert read_cluster("this-machine").rates[0].value == pytest.approx(1000 / 2)


def test_measured_sizes_come_back_and_other_counts_take_the_fit():
    keep_all_reduces(all_reduce_document())
    machine = read_cluster("this-machine")
    for size in (1 << 10, 1 << 16, 1 << 22):
        assert all_reduce_seconds("builtin", machine, 2, size)[0] == pytest.approx(1e-5 + size * 1e-9)
    assert {points.algorithm for points in machine.all_reduce} == {"shared_memory", "builtin"}
    assert all(points.source.startswith("measured by batchscale bench") for points in machine.all_reduce)


def test_a_fit_beyond_what_a_file_may_have_is_left_out():
    """Or the file would be refused, and what it holds be lost."""
    document = all_reduce_document()
    document["fit"]["shared_memory"]["beta_seconds_per_byte"] = 1e-20
    keep_all_reduces(document)
    machine = read_cluster("this-machine")
    assert machine.inside_gbyte_per_second is None
    assert {points.algorithm for points in machine.all_reduce} == {"shared_memory", "builtin"}


def test_later_measurements_replace_their_like_and_leave_the_others():
    keep_all_reduces(all_reduce_document(2))
    keep_all_reduces(all_reduce_document(4))
    keep_all_reduces(all_reduce_document(2, factor=3.0))
    keep_step(step_document(), NET)
    keep_step(step_document(own=2000.0), NET)
    machine = read_cluster("this-machine")
    assert sorted((points.algorithm, points.devices) for points in machine.all_reduce) == [
        ("builtin", 2), ("builtin", 4), ("shared_memory", 2), ("shared_memory", 4),
    ]  # fmt: skip
    assert all_reduce_seconds("builtin", machine, 2, 1 << 16)[0] == pytest.approx(3 * (1e-5 + 65536e-9))
    assert [rate.value for rate in machine.rates] == [pytest.approx(1000, rel=0.02)]  # less the all-reduce


def test_what_is_no_rate_of_one_core_is_not_kept():
    assert keep_step(step_document(processes=1), NET) is None  # its one process had two threads
    assert keep_step(step_document(), None) is None
    assert not machine_file().exists()


def test_another_machine_begins_anew():
    keep_all_reduces(all_reduce_document())
    keep_step(step_document(cpu="another processor"), NET)
    assert not read_cluster("this-machine").all_reduce


def test_a_damaged_file_is_written_anew():
    keep_step(step_document(), NET)
    machine_file().write_text("{")
    with pytest.raises(DataError, match="not a plain YAML"):
        read_cluster("this-machine")
    keep_step(step_document(), NET)
    assert json.loads(machine_file().read_text())["cores_per_host"]["value"] == 2
