"""Where steps wait: the profiler's trace, read for waits of the host, copies, kernels and gaps between them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
_OF_DEVICE, _OF_HOST = ("kernel", "gpu_memcpy", "gpu_memset"), ("cuda_runtime", "cuda_driver")
_GAP_MICROSECONDS = 20.0
_LONGEST = 5

Events = list[dict[str, Any]]


def traced(train: Callable[[int], None], steps: int, device: torch.device) -> dict[str, Any]:
    """What a step costs beside its arithmetic, a step on average; where the longest gaps and the waits are.

    Args:
        train: trains so many steps.
        steps: in the trace.
        device: that trains.
    """
    events = _trace(train, steps, device, with_stack=False)
    lines = longest_gaps(_trace(train, 2, device, with_stack=True))  # Python's own trace makes gaps longer
    return {**figures(events, steps), "longest_gaps": lines, "waiting_lines": _waiting_lines(train, device)}


def _trace(train: Callable[[int], None], steps: int, device: torch.device, with_stack: bool) -> Events:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, with_stack=with_stack) as profiler:
        train(steps)
        if device.type == "cuda":
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events: Events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def _of(events: Events, kinds: tuple[str, ...]) -> Events:
    return sorted((event for event in events if event.get("cat") in kinds), key=lambda event: event["ts"])


def gaps(events: Events) -> list[tuple[float, dict[str, Any]]]:
    """Every time in which the device had nothing to do, in microseconds, and what it did next."""
    found, end = [], None
    for event in _of(events, _OF_DEVICE):
        if end is not None and event["ts"] - end > _GAP_MICROSECONDS:
            found.append((event["ts"] - end, event))
        end = max(end or 0.0, event["ts"] + event["dur"])
    return found


def figures(events: Events, steps: int) -> dict[str, float]:
    """Counts a step, and the share of the time in which the device had nothing to do.

    Args:
        events: of a trace, those with a duration.
        steps: that it holds.
    """
    on_device, on_host = _of(events, _OF_DEVICE), _of(events, _OF_HOST)
    copies = [event["name"] for event in on_device if event["cat"] == "gpu_memcpy"]
    first = on_device[0]["ts"] if on_device else 0.0
    span = max((event["ts"] + event["dur"] for event in on_device), default=0.0) - first
    idle = sum(length for length, _ in gaps(events))
    return {
        "syncs": sum(event["name"] in _WAITS for event in on_host) / steps,
        "pageable_to_device": sum("HtoD" in name and "Pageable" in name for name in copies) / steps,
        "to_host": sum("DtoH" in name for name in copies) / steps,
        "kernels": sum(event["cat"] == "kernel" for event in on_device) / steps,
        "idle_percent": 100 * idle / span if span else 0.0,
        "operations": sum(event.get("cat") == "cpu_op" for event in events) / steps,
    }


def longest_gaps(events: Events) -> list[dict[str, Any]]:
    """The longest gaps, and the line of ours that was running when the launch came that ended each.

    Args:
        events: of a trace with stacks.
    """
    launches = {event["args"].get("correlation"): event for event in _of(events, _OF_HOST) if "args" in event}
    calls = [event for event in _of(events, ("python_function",)) if _is_ours(event["name"])]
    longest = sorted(gaps(events), key=lambda gap: -gap[0])[:_LONGEST]
    return [
        {"microseconds": length, "then": event["name"][:60], "line": _line(launches, calls, event)}
        for length, event in longest
    ]


def _is_ours(name: str) -> bool:
    return "batchscale/" in name or "benchmarks/gpu" in name


def _line(launches: dict[Any, dict[str, Any]], calls: Events, event: dict[str, Any]) -> str:
    launch = launches.get(event.get("args", {}).get("correlation"))
    if launch is None:
        return ""
    # Backward's thread has no Python of its own: whatever thread a call is on, the last to begin is the innermost.
    around = [call["name"] for call in calls if call["ts"] <= launch["ts"] <= call["ts"] + call["dur"]]
    return str(around[-1]) if around else ""


def _waiting_lines(train: Callable[[int], None], device: torch.device) -> dict[str, int]:
    """Lines of Python in which torch says that the host waits for the device, and how often in two steps."""
    if device.type != "cuda":
        return {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in told if "synchronizing" in str(warning.message)]
    return dict(Counter(f"{warning.filename}:{warning.lineno}" for warning in waits))
