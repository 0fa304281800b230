"""What must come out on a GPU: each bar with its value, and whether it was reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
"""Part -> its document."""


@dataclass(frozen=True)
class Bar:
    """A bar.

    Args:
        part: that tells the value.
        what: is measured.
        value: None where it is missing.
        rule: "at least" or "at most".
        limit: of the value.
        everywhere: it holds on any device, in the rehearsal, too; else it is one of speed.
    """

    part: str
    what: str
    value: float | None
    rule: str
    limit: float
    everywhere: bool = False

    @property
    def missed(self) -> bool:
        """Also where there is no value."""
        if self.value is None:
            return True
        return self.value < self.limit if self.rule == "at least" else self.value > self.limit

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.what}: {value}, must be {self.rule} {self.limit:g}"


def bars_of(results: Results) -> Iterator[Bar]:
    """Every bar, with its value in some results."""
    yield from _correctness(results)
    yield from _rates(results)
    yield from _jpeg(results)
    yield from _stalls(results)


def _correctness(results: Results) -> Iterator[Bar]:
    tests = results.get("tests", {})
    yield Bar("tests", "tests failed", tests.get("failed"), "at most", 0, everywhere=True)
    yield Bar("tests", "tests passed", tests.get("passed"), "at least", 1)
    yield Bar("tests", "tests skipped", tests.get("skipped"), "at most", 0)
    exact = results.get("exact", {})
    yield Bar("exact", "precisions measured", len(exact), "at least", 1, everywhere=True)
    for precision, found in exact.items():
        yield Bar("exact", f"{precision}: equal bits", float(found["equal"]), "at least", 1, everywhere=True)


def _rates(results: Results) -> Iterator[Bar]:
    rows = results.get("rates", {}).get("rows", {})
    for name, limit in (("batchscale_one", 1.0), ("batchscale", 0.95), ("batchscale_compile", 1.0)):
        yield Bar("rates", f"{name}, images/s to plain's", _of(rows, name, "ratio", "median"), "at least", limit)
    exact = _of(results, "rates", "exact_to_batchscale", "median")
    yield Bar("rates", "batchscale_exact, images/s to batchscale's", exact, "at least", 0.8)
    ours, plain = (_of(rows, name, "peak_gib") for name in ("batchscale_one", "plain"))
    yield Bar("rates", "batchscale_one, peak memory to plain's", _quotient(ours, plain), "at most", 1.05)
    traces = results.get("trace", {}).get("rows", {})
    for what, limit in (("syncs", 1.0), ("pageable_to_device", 0.0), ("idle_percent", 2.0)):
        value = _of(traces, "batchscale_one", what)
        yield Bar("trace", f"batchscale_one, {what.replace('_', ' ')} a step", value, "at most", limit)
    for part, found in (("trace", traces), ("rates", rows), ("jpeg", results.get("jpeg", {}).get("rows", {}))):
        failed = float(sum(bool(row.get("error")) for row in found.values())) if found else None
        yield Bar(part, "contenders that failed", failed, "at most", 0, everywhere=True)


def _jpeg(results: Results) -> Iterator[Bar]:
    jpeg = results.get("jpeg", {})
    feed = _of(jpeg, "beside", "feed_images_per_second")
    training = _of(jpeg, "rows", "batchscale", "images_per_second", "median")
    yield Bar("jpeg", "feed alone, images/s to training's from memory", _quotient(feed, training), "at least", 1.2)
    yield Bar("jpeg", "training from JPEG to from memory", _of(jpeg, "to_memory", "median"), "at least", 0.97)
    call = [_of(jpeg, "beside", f"call_{where}_microseconds") for where in ("beside", "alone")]
    yield Bar("jpeg", "a small call beside the decoders to alone", _quotient(*call), "at most", 1.3)


def _stalls(results: Results) -> Iterator[Bar]:
    stalls = results.get("stalls", {})
    ended = float(stalls.get("status") == "done")
    yield Bar("stalls", "the run ended well", ended, "at least", 1, everywhere=True)
    blocked = stalls.get("checkpoint_milliseconds")
    yield Bar("stalls", "a checkpoint blocks a step, ms", blocked and statistics.median(blocked), "at most", 50)
    speeds = (stalls.get(f"{what}_images_per_second") for what in ("evaluation", "training"))
    yield Bar("stalls", "evaluation, images/s to training's", _quotient(*speeds), "at least", 2)


def _of(document: Mapping[str, Any], *names: str) -> Any:
    """A number within a document; None where something on the way is missing."""
    value: Any = document
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
