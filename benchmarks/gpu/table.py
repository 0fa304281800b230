"""The table of all parts, and what was missed; nothing is measured here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.bars import bars_of
from benchmarks.gpu.setting import Setting

PARTS = ("machine", "exact", "trace", "rates", "jpeg", "stalls")
"""Those that leave a document; tests leave pytest's."""

_COLUMNS = ("images/s (iqr)", "ratio to plain (iqr)", "peak GiB", "syncs", "pageable", "kernels", "idle %", "start s")


def read(out: Path) -> dict[str, Any]:
    """The documents that the parts have left."""
    results: dict[str, Any] = {}
    for part in PARTS:
        if (file := out / f"{part}.json").exists():
            results[part] = json.loads(file.read_text(encoding="utf-8"))
    if (file := out / "tests.xml").exists():
        results["tests"] = _tests(file)
    return results


def _tests(file: Path) -> dict[str, int]:
    """Numbers of tests, of the file that pytest writes."""
    root = ElementTree.parse(file).getroot()
    suites = [root] if root.tag == "testsuite" else list(root)
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def lines(results: Mapping[str, Any], tiny: bool) -> list[str]:
    """The table; behind it, in a real run, each bar that was missed, in a rehearsal those that hold everywhere."""
    machine, tests = results.get("machine", {}), results.get("tests", {})
    copy, product = (_spread(machine.get(name)) for name in ("copy_terabytes_per_second", "bf16_teraflops"))
    found = [
        f"machine  {machine.get('device')}, driver {machine.get('driver')}, torch {machine.get('torch')}, cuDNN "
        f"{machine.get('cudnn')}, {machine.get('cores')} cores; copy "
        f"{copy} TB/s, bf16 {product} TFLOP/s",
        f"tests    {tests.get('passed')} passed, {tests.get('failed')} failed, {tests.get('skipped')} skipped",
    ]
    for precision, runs in results.get("exact", {}).items():
        weights = " | ".join(f"{name} {value[:12]}" for name, value in runs["weights"])
        found.append(f"exact    {precision} {weights}   {'EQUAL' if runs['equal'] else 'NOT EQUAL'}")
    found += _rates(results) + _jpeg(results.get("jpeg", {})) + _stalls(results.get("stalls", {}))
    return found + missed(results, tiny)


def missed(results: Mapping[str, Any], tiny: bool) -> list[str]:
    """A line for each bar that was missed."""
    judged = [bar for bar in bars_of(results) if bar.everywhere or not tiny]
    return [f"MISSED: {bar} ({bar.part}; see parts.log)" for bar in judged if bar.missed]


def _rates(results: Mapping[str, Any]) -> list[str]:
    rates, traces = (results.get(part, {}).get("rows", {}) for part in ("rates", "trace"))
    found = [" " * 20 + "".join(f"{column:>22}" for column in _COLUMNS)] if rates else []
    for name, row in rates.items():
        trace, start = traces.get(name, {}), row["start"]
        cells = [
            _spread(row.get("images_per_second")), _spread(row.get("ratio")), _number(row.get("peak_gib")),
            *(_number(trace.get(key)) for key in ("syncs", "pageable_to_device", "kernels", "idle_percent")),
            _number(start.get("first_step_seconds")),
        ]  # fmt: skip
        found.append(f"{name:20}" + "".join(f"{cell:>22}" for cell in cells) + f"  {row['error']}".rstrip())
    return found


def _jpeg(jpeg: Mapping[str, Any]) -> list[str]:
    beside, rows = jpeg.get("beside") or {}, jpeg.get("rows", {})
    speeds = {name: _spread(row.get("images_per_second")) for name, row in rows.items()}
    decoded = jpeg.get("on_device", {})
    return [
        f"jpeg     images/s: feed alone {_number(beside.get('feed_images_per_second'))} | training from JPEG "
        f"{speeds.get('batchscale_jpeg')}, {_spread(jpeg.get('to_memory'))} of from memory | plain + DataLoader "
        f"{speeds.get('plain_dataloader')} | decoded on the device "
        f"{decoded.get('error') or _number(decoded.get('images_per_second'))}",
        f"         a small call: alone {_number(beside.get('call_alone_microseconds'))} us, beside decoders "
        f"{_number(beside.get('call_beside_microseconds'))} us",
    ]


def _stalls(stalls: Mapping[str, Any]) -> list[str]:
    blocked = ", ".join(_number(value) for value in stalls.get("checkpoint_milliseconds", []))
    return [
        f"stalls   checkpoint blocks a step {blocked or '-'} ms | evaluation "
        f"{_number(stalls.get('evaluation_images_per_second'))} images/s beside training "
        f"{_number(stalls.get('training_images_per_second'))} | first step after start "
        f"{_number(stalls.get('first_step_after_process_start_seconds'))} s"
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _spread(spread: Mapping[str, float] | None) -> str:
    return "-" if spread is None else f"{_number(spread['median'])} ({_number(spread['iqr'])})"


def measure(setting: Setting) -> int:
    """Print the table; 1 where something was missed."""
    results = read(setting.out)
    print("\n".join(lines(results, setting.tiny)), flush=True)
    if setting.tiny:
        print("a rehearsal: its speeds say nothing, and no bar of speed is judged", flush=True)
    return 1 if missed(results, setting.tiny) else 0
