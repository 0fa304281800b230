"""The seconds of a step on many devices, from the net's layers, the cluster's links and the all-reduce's rounds.

    t_l     gradient of layer l ready, backward: the last layer first
    r_b     bucket b full: the t of its last layer;   e_b = max(e_(b-1), r_b) + all-reduce of its bytes
    step  = max(compute + exposed + straggler, examples / data rate),   exposed = max(e_last - end of backward, 0)

Gradients go out in buckets while the last pass's backward still runs, one after another over the same links; the
update, and so the next forward pass, waits for the last. Every device computes for a time of its own, normal with a
standard deviation of `jitter` times the compute time, and all wait for the slowest: the expected maximum of W of them.

All arrays are over device counts (n). Cost: some tens of operations on arrays of n.
Source: Li et al. 2020, "PyTorch Distributed" (buckets); Thakur, Rabenseifner, Gropp 2005 (alpha and beta).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from batchscale.cost.clusters.cluster import ClusterFile, Precision
from batchscale.cost.step.all_reduce_time import AllReduceTime, chosen_among
from batchscale.cost.step.device_time import DeviceWork, device_work
from batchscale.cost.step.net_table import FLOAT32_BYTES, Floats, NetTable
from batchscale.errors import UsageError

BUCKET_BYTES, BUCKET_BYTES_OF_CORES = 25 << 20, 4 << 20
"""From which a bucket is sent: batchscale's own on GPUs, and PyTorch's; batchscale's own between cores of one host."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step at each of n device counts.

    Args:
        devices: W (n).
        algorithm: of the all-reduce (n).
        compute: forward, backward and update of one device (n).
        exposed_communication: of the all-reduces, what backward does not hide (n); infinite where not made for W.
        straggler: waiting for the slowest device (n).
        data_wait: waiting for examples (n).
        total: all of them (n).
        communication: of all all-reduces, hidden or not (n).
        peak_share: of the devices' peak, by the net's operations (n); not a number where the peak is not known.
    """

    devices: Floats
    algorithm: npt.NDArray[np.str_]
    compute: Floats
    exposed_communication: Floats
    straggler: Floats
    data_wait: Floats
    total: Floats
    communication: Floats
    peak_share: Floats


def step_time(
    net: NetTable,
    cluster: ClusterFile,
    devices: npt.ArrayLike,
    per_device: int,
    algorithm: str = "auto",
    *,
    precision: Precision = "fp32",
    micro_batch: int | None = None,
    rate: float | None = None,
    bucket_bytes: int | None = None,
    wire_bytes: int = 4,
    overlap: bool = True,
    data_rate: float | None = None,
) -> StepTime:
    """Seconds of a step.

    Args:
        net: its layers.
        cluster: devices and links; what its file leaves out costs nothing.
        devices: W, counts inside one host, or whole hosts (n).
        per_device: examples of a step on each.
        algorithm: of the all-reduce; auto takes the fastest at each W.
        precision: of the passes.
        micro_batch: examples of a pass at most; None for all in one.
        rate: examples a second that one device trains of this net alone; None for the file's share of the peak.
        bucket_bytes: in float32, from which a bucket is sent; None for batchscale's own.
        wire_bytes: of a gradient's number between devices: 2 where numerics.wire is bf16 or fp16.
        overlap: whether backward goes on meanwhile.
        data_rate: examples a second that are read and prepared for each device; None where they are always there.

    Raises:
        UsageError: counts that are none, a rate that is none, or too little is known of the device.
    """
    counts = np.atleast_1d(np.asarray(devices, np.float64))
    work = device_work(net, cluster, per_device, precision, micro_batch, rate)
    cores, slower = cluster.cores_per_host, np.ones_like(counts)
    if cores is not None:
        slower = np.maximum(np.minimum(counts, cluster.devices_per_host.value) / cores.value, 1.0)
    buckets = list(buckets_of(net, cluster, work, bucket_bytes, wire_bytes, overlap))
    ends, sums, names = _fastest(algorithm, cluster, counts, buckets, slower)
    compute = work.seconds * slower
    exposed = np.maximum(ends - (work.seconds - work.update) * slower, 0.0)
    jitter = 0.0 if cluster.jitter_percent is None else cluster.jitter_percent.value / 100
    straggler = jitter * compute * expected_maximum(counts) if jitter else np.zeros_like(counts)
    busy = compute + exposed + straggler
    wait = np.maximum(_data_seconds(per_device, data_rate) - busy, 0.0)
    peak = cluster.peak_teraflops[precision].value * 1e12 if precision in cluster.peak_teraflops else math.nan
    total = busy + wait
    return StepTime(
        counts, names, compute, exposed, straggler, wait, total, sums,
        net.flops * per_device / total / peak,
    )  # fmt: skip


def _data_seconds(per_device: int, data_rate: float | None) -> float:
    if data_rate is None:
        return 0.0
    if not data_rate > 0:
        raise UsageError(f"data_rate={data_rate:g}: must be a number of examples a second above 0; correct it")
    return per_device / data_rate


def buckets_of(
    net: NetTable,
    cluster: ClusterFile,
    work: DeviceWork,
    bucket_bytes: int | None = None,
    wire_bytes: int = 4,
    overlap: bool = True,
) -> Iterator[tuple[float, float]]:
    """(second at which it is full, bytes sent) of each bucket, in the order of backward; cores never overlap."""
    on_cores = cluster.cores_per_host is not None
    if bucket_bytes is None:
        bucket_bytes = BUCKET_BYTES_OF_CORES if on_cores else BUCKET_BYTES
    if bucket_bytes < 1:
        raise UsageError(f"bucket_bytes={bucket_bytes}: must be 1 or more; raise it")
    end = work.seconds - work.update
    ready = end - work.backward.sum() + np.cumsum(work.backward[::-1])
    if on_cores or not overlap:
        ready = np.full_like(ready, end)
    filled, share = 0.0, wire_bytes / FLOAT32_BYTES
    for second, gradient in zip(ready, net.gradient_bytes[::-1], strict=True):
        filled += float(gradient)
        if filled >= bucket_bytes:
            yield float(second), filled * share
            filled = 0.0
    if filled:
        yield end, filled * share


def _fastest(
    algorithm: str, cluster: ClusterFile, devices: Floats, buckets: list[tuple[float, float]], slower: Floats
) -> tuple[Floats, Floats, npt.NDArray[np.str_]]:
    """When the last bucket is summed, the sum of all all-reduces, and the algorithm, the best at each count."""
    names = chosen_among(algorithm, cluster)
    ends = np.zeros((len(names), len(devices)))
    sums = np.zeros_like(ends)
    for row, name in enumerate(names):
        all_reduce = AllReduceTime(name, cluster, devices)
        for full, num_bytes in buckets:
            seconds = all_reduce.seconds(num_bytes)
            sums[row] += seconds
            ends[row] = np.maximum(ends[row], full * slower) + seconds
    best, places = ends.argmin(axis=0), np.arange(len(devices))
    return ends[best, places], sums[best, places], np.array(names)[best]


def expected_maximum(counts: npt.ArrayLike) -> Floats:
    """Of W independent standard normal numbers, the expected largest: 0, 0.56, 0.85, 1.03, ..

    E = integral over x > 0 of 1 - F(x)^W, minus that over x < 0 of F(x)^W; between knots linear in log W.

    Args:
        counts: W, at least 1 each (n).
    """
    knots, values = _knots()
    return np.interp(np.log(np.asarray(counts, np.float64)), knots, values)


@cache
def _knots() -> tuple[Floats, Floats]:
    sizes = np.concatenate([np.arange(1, 32), np.geomspace(32, 1e7, 64)])
    x = np.linspace(-9, 9, 901)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    shares = below ** sizes[:, None]
    values = np.where(x >= 0, 1 - shares, -shares).sum(axis=1) * (x[1] - x[0])
    return np.log(sizes), values - 0.5 * (x[1] - x[0])  # the step of the integrand at 0 lies between its two halves
