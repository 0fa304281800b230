"""benchmarks/gpu: what its table says of results, each bar that can be missed, and what it reads from a trace."""

import copy
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import bars, table, traced  # noqa: E402
from benchmarks.gpu.setting import Setting  # noqa: E402

SHA = "a" * 64


def spread(median):
    return {"median": median, "iqr": 0.01}


def row(speed, ratio, gib):
    return {
        "error": "", "start": {"first_step_seconds": 2.0}, "blocks": [], "images_per_second": spread(speed),
        "ratio": spread(ratio), "peak_gib": gib,
    }  # fmt: skip


def trace(**figures):
    usual = {
        "error": "",
        "syncs": 1.0,
        "pageable_to_device": 0.0,
        "to_host": 1.0,
        "kernels": 300.0,
        "idle_percent": 1.0,
    }
    return {**usual, **figures}


GOOD = {
    "machine": {
        "device": "NVIDIA H200", "driver": "1", "torch": "2.11.0", "cudnn": 9, "cores": 16,
        "copy_terabytes_per_second": spread(4.3), "bf16_teraflops": spread(780),
    },
    "tests": {"passed": 70, "failed": 0, "skipped": 0},
    "exact": {"fp32": {"killed": "exit code -9", "weights": [["W=1", SHA], ["W=2", SHA]], "equal": True}},
    "trace": {"rows": {"batchscale_one": trace(), "plain": trace()}},
    "rates": {
        "rows": {
            "plain": row(3000, 1.0, 20.0), "batchscale_one": row(3030, 1.01, 20.5),
            "batchscale": row(2900, 0.96, 21.0), "batchscale_compile": row(3100, 1.03, 18.0),
            "batchscale_exact": row(2400, 0.8, 20.0),
        },
        "exact_to_batchscale": spread(0.82),
    },
    "jpeg": {
        "on_device": {"images_per_second": 8000.0},
        "rows": {"batchscale": row(2900, 1.0, 21.0), "batchscale_jpeg": row(2850, 0.98, 21.0)},
        "to_memory": spread(0.98), "to_loader": spread(1.4),
        "beside": {
            "feed_images_per_second": 4000.0, "call_alone_microseconds": 4.0, "call_beside_microseconds": 5.0,
        },
    },
    "stalls": {
        "status": "done", "checkpoint_milliseconds": [20.0, 30.0, 90.0], "training_images_per_second": 2900.0,
        "evaluation_images_per_second": 9000.0, "first_step_after_process_start_seconds": 9.0,
    },
}  # fmt: skip

WORSE = [
    (("tests", "failed"), 1, "tests failed: 1, must be at most 0 (tests;"),
    (("tests", "skipped"), 3, "tests skipped: 3, "),
    (("exact", "fp32", "equal"), False, "fp32: equal bits: 0, "),
    (("trace", "rows", "batchscale_one", "syncs"), 2.0, "batchscale_one, syncs a step: 2, must be at most 1"),
    (("trace", "rows", "batchscale_one", "pageable_to_device"), 1.0, "pageable to device a step: 1, "),
    (("trace", "rows", "batchscale_one", "idle_percent"), 2.5, "idle percent a step: 2.5, "),
    (("trace", "rows", "plain", "error"), "no GPU", "contenders that failed: 1, must be at most 0 (trace;"),
    (("rates", "rows", "batchscale_one", "ratio"), spread(0.99), "batchscale_one, images/s to plain's: 0.99, "),
    (("rates", "rows", "batchscale", "ratio"), spread(0.94), "batchscale, images/s to plain's: 0.94, "),
    (("rates", "rows", "batchscale_compile", "ratio"), spread(0.9), "batchscale_compile, images/s to plain's: 0.9, "),
    (("rates", "rows", "batchscale_one", "peak_gib"), 22.0, "peak memory to plain's: 1.1, must be at most 1.05"),
    (("rates", "exact_to_batchscale"), spread(0.7), "batchscale_exact, images/s to batchscale's: 0.7, "),
    (("jpeg", "beside", "feed_images_per_second"), 3000.0, "feed alone, images/s to training's from memory: 1.034, "),
    (("jpeg", "to_memory"), spread(0.9), "training from JPEG to from memory: 0.9, "),
    (("jpeg", "beside", "call_beside_microseconds"), 6.0, "a small call beside the decoders to alone: 1.5, "),
    (("stalls", "status"), "diverged", "the run ended well: 0, "),
    (("stalls", "checkpoint_milliseconds"), [60.0, 70.0, 80.0], "a checkpoint blocks a step, ms: 70, "),
    (("stalls", "evaluation_images_per_second"), 5000.0, "evaluation, images/s to training's: 1.724, "),
]


def with_value(path, value):
    results = copy.deepcopy(GOOD)
    place = results
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return results


def test_what_reaches_every_bar_has_no_line_of_misses():
    lines = table.lines(GOOD, tiny=False)
    assert not [line for line in lines if "MISSED" in line]
    assert any(
        line.startswith("batchscale_compile") and "3,100 (0.01)" in line and "1.03 (0.01)" in line for line in lines
    )
    assert any(line.endswith("EQUAL") and "W=2 aaaaaaaaaaaa" in line for line in lines)


@pytest.mark.parametrize(("path", "value", "line"), WORSE)
def test_each_bar_that_is_missed_has_its_line(path, value, line):
    found = table.missed(with_value(path, value), tiny=False)
    assert len(found) == 1
    assert found[0].startswith("MISSED: ")
    assert line in found[0]


def test_what_was_not_measured_is_missed_and_stops_nothing():
    reached = {bar.what for bar in bars.bars_of(GOOD)}
    worse = {bar.what for path, value, _ in WORSE for bar in bars.bars_of(with_value(path, value)) if bar.missed}
    assert reached - worse == {"tests passed", "precisions measured"}
    missing = table.missed({}, tiny=False)
    assert len(missing) == len(list(bars.bars_of({})))
    assert all("not measured" in line or ": 0, " in line for line in missing)
    assert "-" in "".join(table.lines({}, tiny=False))


def test_a_rehearsal_judges_only_what_holds_everywhere():
    assert table.missed(with_value(("rates", "rows", "batchscale", "ratio"), spread(0.1)), tiny=True) == []
    assert table.missed(with_value(("tests", "skipped"), 70), tiny=True) == []
    assert len(table.missed(with_value(("exact", "fp32", "equal"), False), tiny=True)) == 1


def test_the_table_ends_by_its_bars(tmp_path, capsys):
    suite = '<testsuites><testsuite tests="70" failures="0" errors="0" skipped="0"/></testsuites>'
    (tmp_path / "tests.xml").write_text(suite)
    for part, document in GOOD.items():
        if part != "tests":
            (tmp_path / f"{part}.json").write_text(json.dumps(document))
    assert table.measure(Setting("cuda", False, tmp_path)) == 0
    assert "70 passed, 0 failed, 0 skipped" in capsys.readouterr().out
    (tmp_path / "tests.xml").write_text(suite.replace('failures="0" errors="0"', 'failures="1" errors="2"'))
    assert table.measure(Setting("cuda", False, tmp_path)) == 1
    assert "67 passed, 3 failed" in capsys.readouterr().out


def event(kind, name, start, duration, correlation=None):
    arguments = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": kind, "name": name, "ts": start, "dur": duration, "args": arguments}


EVENTS = [  # as torch's profiler writes them, in microseconds; two steps
    event("python_function", "src/batchscale/training/step.py(101): __call__", 0.0, 400.0),
    event("python_function", "src/batchscale/aggregate/riders.py(90): finite", 140.0, 30.0),
    event("python_function", "torch/nn/modules/module.py(1): _call_impl", 145.0, 20.0),
    event("cuda_runtime", "cudaLaunchKernel", 90.0, 5.0, 1),
    event("cuda_runtime", "cudaMemcpyAsync", 150.0, 5.0, 2),
    event("cuda_runtime", "cudaStreamSynchronize", 156.0, 40.0, 3),
    event("cuda_driver", "cuLaunchKernelEx", 290.0, 5.0, 4),
    event("cuda_runtime", "cudaEventSynchronize", 300.0, 5.0, 5),
    event("cuda_runtime", "cudaDeviceSynchronize", 390.0, 5.0, 6),
    event("kernel", "conv", 100.0, 50.0, 1),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 170.0, 10.0, 2),  # 20 us later: no gap
    event("kernel", "longer", 110.0, 45.0, 7),  # beside the first
    event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 200.0, 10.0, 8),
    event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 210.0, 10.0, 9),
    event("kernel", "late", 300.0, 20.0, 4),  # 80 us behind
    event("kernel", "batch norm", 360.0, 40.0, 11),  # 40 us behind; its launch is not in the trace
    event("cpu_op", "aten::add_", 5.0, 1.0),
]


def test_a_trace_is_read_for_waits_copies_kernels_and_gaps():
    assert traced.figures(EVENTS, steps=2) == {
        "syncs": 1.0, "pageable_to_device": 0.5, "to_host": 0.5, "kernels": 2.0,
        "idle_percent": 100 * (80 + 40) / 300, "operations": 0.5,
    }  # fmt: skip


def test_the_longest_gaps_name_the_innermost_line_of_ours_at_the_launch_behind_them():
    longest = traced.longest_gaps(EVENTS)
    step = "src/batchscale/training/step.py(101): __call__"
    assert [(gap["microseconds"], gap["then"], gap["line"]) for gap in longest] == [
        (80.0, "late", step), (40.0, "batch norm", ""),
    ]  # fmt: skip
    nearer = [*EVENTS[:9], *[event("kernel", "a", 100.0, 10.0, 1), event("kernel", "b", 170.0, 1.0, 2)]]
    assert traced.longest_gaps(nearer)[0]["line"] == "src/batchscale/aggregate/riders.py(90): finite"
    assert traced.figures([], steps=1)["idle_percent"] == 0.0
