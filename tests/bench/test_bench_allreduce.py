"""batchscale bench allreduce: the fit, the document, a real short run, what is kept, the figure, and stopping."""

from __future__ import annotations

import io
import json
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.launching import Started
from support.worlds import in_world

from batchscale.aggregate.choice import choose
from batchscale.bench.allreduce import measure
from batchscale.bench.allreduce.document import cost_of, document
from batchscale.bench.allreduce.fit import fit
from batchscale.bench.allreduce.measure import Measurement, bench_allreduce
from batchscale.bench.allreduce.process import _Process
from batchscale.bench.allreduce.rows import SIZES, AllReduceAssignment, rows_of
from batchscale.bench.allreduce.table import as_table
from batchscale.bench.documents import AllReduceDocument
from batchscale.bench.findings import findings_of
from batchscale.bench.meter import Meter
from batchscale.bench.rounds import Budget
from batchscale.build.algorithm import machine, stored, stored_file
from batchscale.cli import main
from batchscale.comm import ALGORITHMS, Choice, Reducer, World
from batchscale.comm.world.gloo import BATCH, OTHER, schedule_gloo_threads
from batchscale.errors import ProcessError
from batchscale.report.draw.file import write_figures

_ROWS = ("builtin_shipped", "builtin", "shared_memory", "shared_memory_copy", "ring", "hierarchical", "direct")
_ALPHA, _BETA = 3e-4, 2.5e-10


def _costs(row: str, processes: int) -> tuple[list[int], list[int]]:
    costs = [cost_of(row, processes, size) for size in SIZES]
    return [cost.steps for cost in costs], [4 * cost.elements_sent for cost in costs]


@pytest.mark.parametrize("row", _ROWS)
@pytest.mark.parametrize("processes", [2, 5, 8])
def test_fit_recovers_what_made_the_times(row: str, processes: int) -> None:
    steps, sent = _costs(row, processes)
    found = fit(steps, sent, [s * _ALPHA + b * _BETA for s, b in zip(steps, sent, strict=True)])
    assert found.alpha_seconds == pytest.approx(_ALPHA, rel=1e-9)
    assert found.beta_seconds_per_byte == pytest.approx(_BETA, rel=1e-9)
    assert found.largest_relative_residual < 1e-9
    assert found.alpha_standard_error == pytest.approx(0, abs=1e-9 * _ALPHA)


def test_standard_errors_are_the_spread_over_many_noisy_runs() -> None:
    steps, sent = _costs("ring", 4)
    true = np.array(steps) * _ALPHA + np.array(sent) * _BETA
    noise = np.random.default_rng(0).normal(1, 0.03, (600, len(true)))
    found = [fit(steps, sent, list(true * factors)) for factors in noise]
    for value, error in (
        ("alpha_seconds", "alpha_standard_error"),
        ("beta_seconds_per_byte", "beta_standard_error"),
    ):
        spread = statistics.stdev(getattr(f, value) for f in found)
        assert statistics.mean(getattr(f, error) for f in found) == pytest.approx(spread, rel=0.1)


def test_fit_is_never_negative_and_is_the_best_of_those() -> None:
    steps, sent = [2, 2, 2], [1000, 2000, 4000]
    found = fit(steps, sent, [1.0, 3.0, 9.0])  # faster than proportional: the line would begin below zero
    assert found.alpha_seconds == 0
    assert found.alpha_standard_error is None
    assert found.beta_standard_error is not None

    def error(beta: float) -> float:
        return sum((beta * b / s - 1) ** 2 for b, s in zip(sent, [1.0, 3.0, 9.0], strict=True))

    best = found.beta_seconds_per_byte
    assert error(best) < min(error(0.999 * best), error(1.001 * best))
    flat = fit(steps, sent, [4.0, 3.0, 2.0])
    assert flat.beta_seconds_per_byte == 0
    assert flat.beta_standard_error is None
    assert fit([2], [1000], [1.0]).alpha_standard_error is None  # one size says nothing of two unknowns


def _measurement(row: str, size: int, *times: float) -> Measurement:
    return Measurement(row, size, times=list(times), repetitions=len(times))


def _document(rows: tuple[str, ...] = _ROWS) -> AllReduceDocument:
    sizes = (1024, 1 << 20)
    measurements = [_measurement(row, size, 1e-6 * size, 2e-6 * size, 3e-6 * size) for size in sizes for row in rows]
    measurements += [_measurement(row, size, 1e-6 * size) for size in sizes for row in ("copy_one", "copy_all")]
    paired = {"builtin_shipped": (8.0, 4.0, 9.0), "builtin": (2.0, 2.0, 2.0), "auto": (1.0, 2.0, 1.0)}
    auto = [[_measurement(row, size, *times) for row, times in paired.items()] for size in sizes]
    choice = Choice(((32768, "shared_memory"), (1 << 20, "ring")), "measured")
    return document(AllReduceAssignment(4, 1 << 20), measurements, auto, choice, None, ["torus is not measured: no"])


def test_document_of_known_times() -> None:
    found = _document().model_dump()
    assert {"processes", "rows", "auto", "fit", "limit", "choice", "conditions", "notes"} == set(found)
    row = found["rows"][0]
    assert (row["algorithm"], row["bytes"], row["seconds"]) == ("builtin_shipped", 1024, 2e-6 * 1024)
    assert row["bus_gigabytes_per_second"] == pytest.approx(1.5 / 2e-6 / 1e9)
    assert row["share_of_limit"] == pytest.approx(1.5 / 2)
    assert row["iqr_seconds"] == pytest.approx(1e-6 * 1024)
    auto = {entry["bytes"]: entry for entry in found["auto"]}
    assert [entry["algorithm"] for entry in auto.values()] == ["shared_memory", "ring"]
    first = auto[1024]
    assert (first["seconds"], first["builtin_seconds"], first["builtin_tuned_seconds"]) == (1.0, 8.0, 2.0)
    assert (first["builtin_to_auto"], first["builtin_tuned_to_auto"]) == (8.0, 2.0)  # of 8, 2, 9 and of 2, 1, 2
    assert (first["builtin_to_auto_iqr"], first["not_measurable_now"]) == (3.5, True)
    assert set(found["fit"]) == set(_ROWS)
    assert found["limit"][0]["all_gigabytes_per_second"] == pytest.approx(4 * 1e-3)
    json.dumps(found, allow_nan=False)
    text = as_table(found)
    assert all(name in text for name in (*_ROWS, "1 KB", "1 MB", "share of the limit", "not measurable now"))
    assert "note: torus is not measured: no" in text


def test_every_algorithm_has_a_row_and_a_declared_cost() -> None:
    assert set(rows_of(ALGORITHMS)) == {*ALGORITHMS, "builtin_shipped", "shared_memory_copy"}
    for row in rows_of(ALGORITHMS):
        assert cost_of(row, 6 if row == "binary_blocks" else 8, 4096).steps >= 2
    assert cost_of("builtin", 6, 4096) == cost_of("ring", 6, 4096)
    assert cost_of("shared_memory_copy", 6, 4096) == cost_of("direct", 6, 4096)


def test_slow_rows_come_less_often_but_not_the_backend() -> None:
    measurements = [
        Measurement("shared_memory", 1, 0.1),
        Measurement("ring", 1, 0.31),
        Measurement("torus", 1, 0.29),
        Measurement("builtin", 1, 0.4),
    ]
    measure._thin_out(measurements)
    assert [measurement.every for measurement in measurements] == [1, 3, 1, 1]


def test_the_findings_have_a_line_for_every_row_and_the_choice_beside_them(tmp_path: Path) -> None:
    findings = findings_of(_document())
    times, bandwidths = findings.figures
    assert [series.name for series in times.series] == [*_ROWS, "auto, timed afresh"]
    assert [series.name for series in bandwidths.series] == [*_ROWS, "auto, timed afresh", "each copying (limit)"]
    assert times.series[0].y == pytest.approx((2e-3 * 1024, 2e-3 * (1 << 20)))
    assert times.series[-1].y == (1000.0, 1000.0)
    assert findings.result == _document().model_dump()
    written = write_figures(findings.figures, findings.title, tmp_path / "allreduce")
    assert [path.name for path in written] == ["allreduce.png", "allreduce.svg"]


def test_a_real_run_keeps_its_choice_for_the_runs_to_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    budget = Budget(total_seconds=0.0, block_seconds=1e-4, min_rounds=2)
    findings = bench_allreduce(2, budget=budget, sizes=(1024, 65536))
    found = findings.result
    rows = {row["algorithm"] for row in found["rows"]}
    left_out = {note.partition(" ")[0] for note in found["notes"]}
    assert rows == set(rows_of([name for name in ALGORITHMS if name not in left_out]))
    assert {"builtin_shipped", "builtin"} <= rows
    assert all(row["seconds"] > 0 and row["blocks"] == 2 and row["repetitions"] >= 2 for row in found["rows"])
    assert len(found["rows"]) == 2 * len(rows)
    assert [entry["bytes"] for entry in found["auto"]] == [1024, 65536]
    assert found["conditions"]["rounds"] == found["conditions"]["auto_rounds"] == 2

    kept = stored(2)
    assert kept is not None
    assert kept["machine"] == machine(World(size=2)) == found["conditions"]["machine"]
    assert kept["limits"] == found["choice"]["limits"]
    assert found["choice"]["file"] == str(stored_file(2))
    assert stored(3) is None
    as_table(found)
    write_figures(findings.figures, "", tmp_path / "figure")


def test_a_kept_choice_is_taken_by_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    world, notes = World(size=2), []
    choice = Choice(((4096, "builtin"),), "measured by bench allreduce on a day")
    assert measure._keep(choice, 2, notes) == stored_file(2)
    assert not notes

    class _Two(World):
        def from_rank_zero(self, make: Any, what: str = "") -> Any:
            return make()

    reducer = Reducer.__new__(Reducer)
    reducer.world = _Two(size=2)
    monkeypatch.setattr(Reducer, "available", lambda self: ["builtin"])
    assert choose(reducer, "auto", [torch.zeros(4)], machine(world), stored(2)) == choice


def test_a_cache_that_cannot_be_written_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    notes: list[str] = []
    for folder in (tmp_path / "file", Path("/proc/self")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert measure._keep(Choice(((1, "builtin"),)), 2, notes) is None
    assert all("the choice is not stored" in note and "set XDG_CACHE_HOME" in note for note in notes)
    assert "Not a directory" in notes[0]
    assert len(notes) == 2


def test_a_wrong_sum_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    process = _Process(AllReduceAssignment(1, 4096))
    process.check("builtin", 1024)
    monkeypatch.setattr(process.reducer, "all_reduce", lambda tensor, what, algorithm: tensor[:3].add_(1))
    with pytest.raises(ProcessError, match="builtin: 3 of 256 sums are wrong"):
        process.check("builtin", 1024)


def test_facts_that_are_asked_for_come_with_every_answer() -> None:
    answers, count = io.StringIO(), iter(range(9))
    meter = Meter(io.StringIO("2\n3\n"), answers)
    meter.note(once="here")
    meter.ask(phase_seconds=lambda: {"update": next(count)})
    for _ in range(3):
        meter.step()
    said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [(a["steps"], a.get("once"), a["phase_seconds"]["update"]) for a in said] == [(1, "here", 0), (2, None, 1)]


def _policies_of_gloo(world: World) -> list[set[int]]:
    seen = []
    for policy in (None, OTHER, BATCH):
        schedule_gloo_threads(policy)
        threads = [t for t in Path("/proc/self/task").iterdir() if (t / "comm").read_text().startswith("gloo")]
        seen.append({os.sched_getscheduler(int(thread.name)) for thread in threads})
    return seen


@pytest.mark.skipif(BATCH is None, reason="the policies are Linux's")
def test_gloo_threads_are_tuned_and_can_be_as_shipped() -> None:
    assert in_world(2, _policies_of_gloo) == [[{os.SCHED_BATCH}, {os.SCHED_OTHER}, {os.SCHED_BATCH}]] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--processes", "1"], "--processes=1: one process has nothing to reduce"),
        (["--processes", "65"], "--processes=65: at most 64"),
        (["--out", "/"], "/: holds other files"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "allreduce", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_more_tensors_than_memory_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "free_bytes", lambda: 2_000 << 20)
    assert main(["bench", "allreduce", "--processes", "8"]) == 2
    assert "--processes=8: need 3200 MB of memory, 2000 MB are free; use at most 5" in capsys.readouterr().err


@pytest.mark.slow
def test_stopping_ends_all_processes(tmp_path: Path) -> None:
    bench = Started("bench", "allreduce", "--no-store", environment={"TMPDIR": str(tmp_path)})
    assert bench.process.stderr is not None
    assert bench.process.stderr.readline() == "starting 2 processes\n"
    bench.process.stderr.readline()  # the first round is done
    assert len(bench.living()) == 3
    bench.process.send_signal(signal.SIGINT)
    code, _, err = bench.end()
    assert code == 130
    assert "stopped by SIGINT; all processes were ended" in err
    assert not list(tmp_path.glob("batchscale-bench-*"))
