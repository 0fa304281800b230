"""batchscale bench step: its statistics, its protocol, its document, and that nothing stays behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscale.bench import peers, rounds, step
from batchscale.bench.assignment import Assignment
from batchscale.bench.contender import Block, Contender
from batchscale.bench.results import document
from batchscale.bench.rounds import Budget, Measured
from batchscale.bench.statistics import Spread, median_interval, paired_ratio, spread, verdict_of
from batchscale.bench.table import as_table
from batchscale.bench.torchvision_files import lay_out
from batchscale.bench.turns import in_turn
from batchscale.cli import main
from batchscale.errors import ProcessError, UsageError
from batchscale.recipe import Recipe, recipe_from

_ROW_KEYS = {"name", "images_per_second", "images_per_cpu_second", "iqr"}
_RATIO_KEYS = {"to_ceiling", "to_best_documented_peer", "to_tuned_peer", "exact_to_fast"}
_QUICK = Budget(total_seconds=0.0, block_seconds=0.05, min_rounds=2)


def _recipe(data: str = "digits", workers: int = 4, **entries: Any) -> Recipe:
    return recipe_from(
        {
            "data": {"name": data},
            "model": {"name": "cnn"},
            "minibatch": {"workers": workers, "per_worker": 8},
            "epochs": 1,
            "learning_rate": {"reference": 0.05, "reference_minibatch": 32},
            **entries,
        }
    )


def _assignment(processes: int = 2) -> Assignment:
    return Assignment(_recipe().model_dump(mode="json"), None, "", "", processes, 1)


def _children(parent: int) -> list[int]:
    """Benchmark processes that this parent has started and that are still there."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"batchscale.bench.child" in command and str(parent).encode() in command:
                found.append(int(folder.name))
    return found


def _gone(parent: int, seconds: float = 60.0) -> bool:
    """Within what a killed process needs at most on a machine however busy."""
    deadline = time.monotonic() + seconds
    while _children(parent) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _children(parent)


def test_spread_of_known_numbers() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, 1.5)
    assert spread([7.0]) == Spread(7.0, 0.0)


def test_ratios_are_of_pairs_in_one_round() -> None:
    assert paired_ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == Spread(2.0, 1.0)  # of medians it would be 4/3
    slowed = paired_ratio([10.0, 5.0, 1.0], [20.0, 10.0, 2.0])  # the machine slowed both sides alike
    assert slowed == Spread(0.5, 0.0)
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_the_interval_of_a_median_covers_it_as_the_binomial_says() -> None:
    """P(X_(r) <= median <= X_(m+1-r)) = 1 - 2 P(Binomial(m, 1/2) < r), whatever the distribution; r is the largest."""
    values = list(range(1, 31))
    assert median_interval(values) == (11, 20)  # 2 x 0.0494; with r = 12 it would be 2 x 0.1002
    assert median_interval([1.0, 2.0, 3.0, 4.0]) is None  # 2 x 1/16 is above 0.1
    assert median_interval([5.0, 1.0, 2.0, 4.0, 3.0]) == (1.0, 5.0)  # 2 x 1/32
    draws = np.random.default_rng(0).exponential(size=(2000, 31))
    ends = [median_interval(list(row)) for row in draws]
    covered = np.mean([low <= math.log(2) <= high for low, high in ends if ends])
    expected = 1 - 2 * sum(math.comb(31, below) for below in range(11)) / 2**31
    assert abs(covered - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.985] * 30, "not slower"),
        ([0.975] * 30, "slower"),
        ([0.97, 0.99] * 15, "not resolved"),
        ([0.985] * 29, "not resolved"),
        ([2.0], "not resolved"),
    ],
)
def test_slower_is_told_by_the_interval_and_the_margin(ratios: list[float], verdict: str) -> None:
    assert verdict_of(ratios) == verdict


def test_so_many_rounds_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Budget] = []

    def stopped(*_: object, budget: Budget, **__: object) -> None:
        budgets.append(budget)
        raise UsageError("enough")

    monkeypatch.setattr(step, "bench_step", stopped)
    assert main(["bench", "step", "--rounds", "30"]) == main(["bench", "step"]) == 2
    assert (budgets[0].min_rounds, budgets[0].max_rounds) == (30, 30)
    assert budgets[1] == step.BUDGET
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "step", "--rounds", "0"])


def test_every_contender_comes_once_a_round_and_at_every_place() -> None:
    running: list[Any] = list("abcd")
    orders: list[list[Any]] = [in_turn(running, round_) for round_ in range(8)]
    assert all(sorted(order) == running for order in orders)
    assert orders[:3] == [list("abcd"), list("dcba"), list("bcda")]
    for name in running:
        assert sorted(order.index(name) for order in orders) == [0, 0, 1, 1, 2, 2, 3, 3]


_LOOP = """
import sys
from batchscale.bench.meter import Meter
meter = Meter(sys.stdin, sys.stdout)
meter.note(micro_batch=8)
taken = 0
while True:
    taken += 1
    print(taken, file=sys.stderr, flush=True)
    meter.step()
"""


def test_meter_takes_the_steps_it_is_told_and_blocks_between() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        ready = json.loads(child.stdout.readline())
        assert (ready["steps"], ready["micro_batch"]) == (1, 8)
        child.stdin.write("3\n")
        child.stdin.flush()
        done = json.loads(child.stdout.readline())
        assert done["steps"] == 3
        assert "micro_batch" not in done
        assert done["cpu_seconds"] >= 0
        assert done["wall_seconds"] > 0
        assert child.poll() is None
        child.stdin.close()
        assert child.wait() == 0
        assert child.stderr.read().split() == ["1", "2", "3", "4"]


class _Still:
    """Stands for a contender that has been measured."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes = {"memory_format": "contiguous", "micro_batch": 8}


def _measured(seconds: dict[str, list[float]]) -> list[Any]:
    return [
        Measured(_Still(name), 2, 1.0, [Block(2, s, 2 * s) for s in times])  # type: ignore[arg-type]
        for name, times in seconds.items()
    ]


def test_document_of_known_blocks() -> None:
    running = _measured(
        {
            "ceiling": [1.0, 1.0, 1.0],
            "batchscale": [2.0, 1.25, 1.25],
            "batchscale_exact": [4.0, 2.5, 2.5],
            "ddp_torchvision": [8.0, 8.0, 8.0],
            "ddp_tensor": [4.0, 2.5, 2.5],
            "ddp_tuned": [2.0, 1.25, 1.25],
        }
    )
    found = document("toy", _assignment(), running, ["lightning is left out"]).model_dump()
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["ceiling"] == {"name": "ceiling", "images_per_second": 64.0, "images_per_cpu_second": 32.0, "iqr": 0.0}
    assert found["best_documented_peer"] == "ddp_tensor"
    assert found["ratios"] == {
        "to_ceiling": 0.8, "to_best_documented_peer": 2.0, "to_tuned_peer": 1.0, "exact_to_fast": 0.5
    }  # fmt: skip
    assert found["ratio_iqr"]["to_ceiling"] == 0.15
    assert found["not_measurable_now"] == ["to_ceiling"]
    assert found["ratio_interval"]["to_ceiling"] is None  # of three rounds there is none
    assert found["verdicts"] == {"to_best_documented_peer": "not resolved", "to_tuned_peer": "not resolved"}
    thirty = _measured({name: [1.0, 2.0] * 15 for name in ("ceiling", "batchscale", "batchscale_exact", "ddp_tuned")})
    longer = document("toy", _assignment(), thirty, []).model_dump()
    assert (
        longer["ratio_interval"]["to_tuned_peer"] == longer["ratio_interval_per_cpu_second"]["to_tuned_peer"] == [1, 1]
    )
    assert longer["verdicts"] == {"to_tuned_peer": "not slower"}
    assert [line.split()[-2:] for line in as_table(longer).splitlines() if "ddp_tuned  " in line and "/" in line] == [
        ["not", "slower"]
    ]
    assert found["conditions"]["rounds"] == 3
    table = as_table(found)
    assert [line.split("  ")[0] for line in table.splitlines() if "not measurable now" in line] == [
        "batchscale / ceiling"
    ]
    assert "lightning is left out" in table


def test_document_without_any_peer_has_no_ratio_to_one() -> None:
    running = _measured({name: [1.0, 1.0] for name in step.OURS})
    found = document("toy", _assignment(), running, []).model_dump()
    assert set(found["ratios"]) == _RATIO_KEYS
    assert found["ratios"]["to_tuned_peer"] is None
    assert found["ratios"]["to_best_documented_peer"] is None
    assert "ddp_tuned" not in as_table(found)
    assert "kn = 4 x 8 = 32 images a step, 2 processes of 1 thread\n" in as_table(found)
    one = {**found, "processes": 1, "minibatch": {"workers": 1, "per_worker": 1, "images": 1}}
    assert "kn = 1 x 1 = 1 image a step, 1 process of 1 thread\n" in as_table(one)


def test_every_peer_is_one_file_and_every_file_a_peer() -> None:
    files = {file.stem for file in Path(peers.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(peers.PEERS) == {*peers.DOCUMENTED, peers.TUNED}


def test_torchvision_reads_what_is_laid_out(data_folder: Path, tmp_path: Path) -> None:
    import torchvision

    lay_out("fashion_mnist", data_folder, tmp_path)
    assert len(torchvision.datasets.FashionMNIST(root=tmp_path, train=True)) == 60_000
    lay_out("digits", None, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_contender_that_dies_is_named_with_its_last_line(tmp_path: Path) -> None:
    contender = Contender("nosuch", _assignment(), tmp_path, lambda: None)
    try:
        contender.start()
        with pytest.raises(ProcessError, match=r"nosuch: rank \d ended with exit code 1: ModuleNotFoundError"):
            contender.ready()
    finally:
        contender.close()
    assert not _children(os.getpid())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--processes", "3"], "--processes=3: must divide the minibatch of 512 images"),
        (["precision=fp64"], "precision=fp64: bench step compares float32"),
        (["optimizer={name: lars}"], "optimizer.name=lars: bench step compares plain momentum SGD"),
        (["execution.device=cuda"], "execution.device=cuda"),
        (["minibatch.worker=3"], "minibatch.worker"),
        (["nosuch"], "nosuch"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_all_contenders_on_real_data(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_WARM_SECONDS", 0.1)
    found = step.bench_step(_recipe("fashion_mnist"), "tiny", data_folder, 2, budget=_QUICK).result
    names = [row["name"] for row in found["rows"]]
    left_out = {note.partition(" ")[0] for note in found["notes"]}
    assert left_out <= {"lightning", "accelerate"}  # not installed here
    assert set(names) == {*step.OURS, *peers.PEERS} - left_out
    assert all(set(row) == _ROW_KEYS and row["images_per_second"] > 0 for row in found["rows"])
    assert set(found["ratios"]) == set(found["ratio_iqr"]) == set(found["ratios_per_cpu_second"]) == _RATIO_KEYS
    assert all(value is not None for value in found["ratios"].values())
    assert found["minibatch"] == {"workers": 4, "per_worker": 8, "images": 32}
    assert found["conditions"]["rounds"] == 2
    assert found["conditions"]["micro_batch_exact"] == 8
    assert not _children(os.getpid())
    json.dumps(found)


def test_a_peer_that_fails_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_WARM_SECONDS", 0.1)
    monkeypatch.setattr(step, "PEERS", ("nosuch", "ddp_torchvision", "ddp_tuned"))
    found = step.bench_step(_recipe(), "tiny", None, 1, budget=_QUICK).result
    assert [row["name"] for row in found["rows"]] == [*step.OURS, "ddp_tuned"]
    assert any("nosuch: rank" in note for note in found["notes"])
    assert any("torchvision has no class for data.name=digits" in note for note in found["notes"])
    assert found["ratios"]["to_best_documented_peer"] is None
    assert not _children(os.getpid())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_stays_behind_when_stopped(number: int, code: int, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(_recipe().model_dump(mode="json")), encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bench = subprocess.Popen(
        [sys.executable, "-m", "batchscale", "bench", "step", str(recipe)],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with bench:
        assert bench.stderr is not None
        for line in bench.stderr:
            if line == "starting batchscale\n":
                break
        assert len(_children(bench.pid)) >= 2
        bench.send_signal(number)
        assert bench.wait() == code
    assert _gone(bench.pid)
    if number != signal.SIGKILL:
        assert not list(scratch.glob("batchscale-bench-*"))
