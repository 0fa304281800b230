"""The physical step time as a plan asks for it: the fastest all-reduce at each number of devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscale.cost.clusters.cluster import ClusterFile, Precision
from batchscale.cost.planning.pace import DeviceLoad
from batchscale.cost.step.all_reduce_time import ALGORITHMS, traffic_of
from batchscale.cost.step.device_time import device_work, largest_micro_batch, memory_bytes
from batchscale.cost.step.net_table import Floats, NetTable
from batchscale.cost.step.step_time import buckets_of, expected_maximum, step_time
from batchscale.errors import UsageError

_NEAREST: dict[str, tuple[Precision, ...]] = {
    "fp32": ("fp32", "tf32", "bf16", "fp16"),
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
}
"""Which precision's rates stand in where a cluster's file has none of the recipe's, best first."""


@dataclass(frozen=True)
class LayerPhysics:
    """Seconds of a step by layers, links and algorithms.

    Args:
        net: its layers.
        cluster: devices and links.
        precision: of the passes.
        micro_batch: examples of a pass at most; None: all in one.
        rate: examples a second of one device; None: by the file's share of the peak.
        data_rate: examples a second that are read and prepared for each device; None: they are always there.
        optimizer_bytes: of its state, of a parameter.
        wire_bytes: of a gradient's number between devices.
    """

    net: NetTable
    cluster: ClusterFile
    precision: Precision
    micro_batch: int | None
    rate: float | None = None
    data_rate: float | None = None
    optimizer_bytes: int = 4
    wire_bytes: int = 4

    def load(self, per_device: int) -> DeviceLoad:
        """What a device of so many examples holds and does in a step."""
        peak = self.cluster.peak_teraflops.get(self.precision)
        micro = per_device if self.micro_batch is None else min(self.micro_batch, per_device)
        needed = memory_bytes(self.net, micro, self.precision, self.optimizer_bytes)
        return DeviceLoad(self.net.flops * per_device, None if peak is None else peak.value * 1e12, micro, needed)

    def alone_percent(self, per_device: int) -> float | None:
        """Of its peak that a device reaches which waits neither for others nor for its host; None: not known."""
        cluster = self.cluster.model_copy(update={"launch_microseconds": None})
        work = device_work(self.net, cluster, per_device, self.precision, self.micro_batch, self.rate)
        return self.load(per_device).peak_percent(work.seconds)

    def best(self, devices: Floats, per_device: int) -> tuple[Sequence[str], Floats]:
        """The fastest all-reduce at each count, and log of the seconds of a step with it.

        Args:
            devices: counts (m).
            per_device: examples of a device in a step.
        """
        time = step_time(
            self.net, self.cluster, devices, per_device,
            precision=self.precision, micro_batch=self.micro_batch, rate=self.rate, data_rate=self.data_rate,
            wire_bytes=self.wire_bytes,
        )  # fmt: skip
        return [str(name) for name in time.algorithm], np.log(time.total)

    def work(self, devices: Floats, per_device: int) -> dict[str, Any]:
        """What a step does whatever the link between hosts, for the page's script.

        Args:
            devices: counts (m).
            per_device: examples of a device in a step.

        Returns:
            ``compute``: seconds; ``backward_end``: seconds, after which communication is exposed; ``buckets``: pairs
            (second at which it is full, bytes); ``straggler``: seconds (m); ``data``: seconds.
        """
        work = device_work(self.net, self.cluster, per_device, self.precision, self.micro_batch, self.rate)
        jitter = 0.0 if self.cluster.jitter_percent is None else self.cluster.jitter_percent.value / 100
        return {
            "compute": work.seconds,
            "backward_end": work.seconds - work.update,
            "buckets": [list(bucket) for bucket in buckets_of(self.net, self.cluster, work, None, self.wire_bytes)],
            "straggler": [jitter * work.seconds * float(most) for most in expected_maximum(devices)],
            "data": 0.0 if self.data_rate is None else per_device / self.data_rate,
        }

    def traffic(self, devices: Floats) -> list[tuple[str, list[list[float] | None]]]:
        """What each all-reduce puts on links, for the page's script.

        Args:
            devices: counts (m).

        Returns:
            (algorithm, at each count: seconds inside hosts, seconds a byte inside hosts, rounds between hosts, share
            of the bytes between hosts; None where it is not made for so many);
            in the order in which the first of equally fast ones is taken.
        """
        inside = self.cluster.inside()
        alpha, beta = (0.0, 0.0) if inside is None else (inside.microseconds * 1e-6, 8 / (inside.gbit_per_second * 1e9))
        pairs: list[tuple[str, list[list[float] | None]]] = []
        for name in ALGORITHMS:
            sent = traffic_of(name, self.cluster, devices)
            columns = (sent.inside_rounds, sent.inside_share, sent.between_rounds, sent.between_share)
            columns_of_counts = [
                [float(ins * alpha), float(share * beta), float(rounds), float(between)]
                if math.isfinite(ins) and math.isfinite(rounds)
                else None
                for ins, share, rounds, between in zip(*columns, strict=True)
            ]
            pairs.append((name, columns_of_counts))
        return pairs


def precision_of(cluster: ClusterFile, asked: str, rate: float | None) -> Precision:
    """The recipe's precision, or the nearest one that the cluster's file has a rate for.

    Args:
        cluster: its file.
        asked: the recipe's.
        rate: of one device, where it is known: the precision then says little.
    """
    there = {measured.precision for measured in cluster.rates} if rate is None else set(cluster.peak_teraflops)
    order = _NEAREST.get(asked, ("fp32",))
    return next((name for name in order if name in there), order[0])


def micro_batch_of(
    net: NetTable, cluster: ClusterFile, precision: Precision, optimizer_bytes: int, per_worker: int
) -> int | None:
    """Examples of a pass at most, in whole workers, as fit on a device; None where its memory is not known.

    Raises:
        UsageError: not one worker, or not one example, fits.
    """
    largest = largest_micro_batch(net, cluster, precision, optimizer_bytes)
    if largest is None:
        return None
    if largest == 0:
        needed = memory_bytes(net, 1, precision, optimizer_bytes) / 1e9
        memory = cluster.memory_gbyte.value if cluster.memory_gbyte is not None else 0
        raise UsageError(
            f"memory_gbyte={memory:g} of a {cluster.device}: a pass of one of these {net.unit}, with weights, "
            f"gradients and the optimizer's state, takes {needed:.2g} GB at the least; give the file of one with more"
        )
    if largest < per_worker:
        raise UsageError(
            f"minibatch.per_worker={per_worker}: of these {net.unit} a {cluster.device} holds {largest} at most in a "
            f"pass, and a pass holds whole workers; give minibatch.per_worker={largest} or less"
        )
    return largest // per_worker * per_worker
