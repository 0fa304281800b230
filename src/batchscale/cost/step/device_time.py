"""What one device does in a step: seconds of each layer, from its peak and a stated share of it, or from a rate.

seconds of a layer = max(flops / peak, bytes / memory's rate) / share

The share is what a published or measured rate of one device says of such nets: the seconds of the formula at share 1,
over those that were measured. Where the rate of the net itself is known, the layers are scaled to it.

seconds of a pass = max(sum over layers, layers * launch)

The host hands the layers to the device one after another, and the device runs behind it: with few examples it has done
a layer before the next one comes. So a step has a shortest time, whatever its minibatch.

Source: Williams, Waterman, Patterson 2009 (the roofline).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from batchscale.cost.clusters.cluster import ClusterFile, Precision
from batchscale.cost.step.net_table import Floats, NetTable, shipped_net
from batchscale.errors import UsageError

_SCALE = {"fp32": 1.0, "tf32": 1.0, "bf16": 0.5, "fp16": 0.5}
"""Bytes of an activation over those in float32."""
_ALIKE = {"bf16": "fp16", "fp16": "bf16"}
"""As many operations and bytes: a rate of one stands for the other."""
_UPDATE_BYTES = 20
"""Of a parameter, momentum SGD: weight, gradient and momentum read, weight and momentum written, in float32."""
_STATE_BYTES = 8
"""Of a parameter, weight and gradient; an optimizer's own state comes on top."""


@dataclass(frozen=True)
class DeviceWork:
    """Of one device and one step.

    Args:
        passes: micro-batches, one after another.
        forward, backward: seconds of each layer in one pass (L).
        update: seconds of the optimizer's step.
    """

    passes: int
    forward: Floats
    backward: Floats
    update: float

    @property
    def seconds(self) -> float:
        """Of all passes and the update, alone and without communication."""
        return self.passes * float(self.forward.sum() + self.backward.sum()) + self.update

    def scaled(self, factor: float) -> DeviceWork:
        """The same, as many times as long."""
        return DeviceWork(self.passes, self.forward * factor, self.backward * factor, self.update * factor)

    def launched(self, launch: float) -> DeviceWork:
        """The same, where the host takes so many seconds to hand over a layer."""
        forward, backward = (
            layers if layers.sum() > len(layers) * launch else np.full_like(layers, launch)
            for layers in (self.forward, self.backward)
        )
        return DeviceWork(self.passes, forward, backward, self.update)


def _at_peak(net: NetTable, cluster: ClusterFile, per_device: int, precision: Precision, micro: int) -> DeviceWork:
    """At share 1.

    Raises:
        UsageError: the cluster's file does not say what the device's peak is.
    """
    if precision not in cluster.peak_teraflops or cluster.memory_gbyte_per_second is None:
        raise UsageError(
            f"precision={precision}: the cluster's file gives no peak_teraflops.{precision} and "
            f"memory_gbyte_per_second of {cluster.device}; add them with their source, or give a measured --rate"
        )
    flops = cluster.peak_teraflops[precision].value * 1e12
    rate = cluster.memory_gbyte_per_second.value * 1e9
    examples = per_device / math.ceil(per_device / micro)  # of a pass

    def seconds(layer_flops: Floats, layer_bytes: Floats, fixed: Floats) -> Floats:
        moved = (examples * layer_bytes + fixed) * _SCALE[precision]
        return np.asarray(np.maximum(examples * layer_flops / flops, moved / rate))

    return DeviceWork(
        math.ceil(per_device / micro),
        seconds(net.forward_flops, net.forward_bytes, net.forward_fixed_bytes),
        seconds(net.backward_flops, net.backward_bytes, net.backward_fixed_bytes),
        float(net.parameters.sum()) * _UPDATE_BYTES / rate,
    )


def share_of_peak(cluster: ClusterFile, precision: Precision) -> float:
    """What share of the formula's speed nets reach on this device: by the first rate of this precision in its file.

    Raises:
        UsageError: there is none.
    """
    for measured in cluster.rates:
        if precision in (measured.precision, _ALIKE.get(measured.precision)):
            net, examples = shipped_net(measured.net), measured.per_device
            return _at_peak(net, cluster, examples, precision, examples).seconds * measured.value / examples
    raise UsageError(
        f"precision={precision}: the cluster's file has no rate measured in it on one {cluster.device}, so nothing "
        f"says what share of the peak is reached; add one with its source, or give a measured --rate"
    )


def device_work(
    net: NetTable,
    cluster: ClusterFile,
    per_device: int,
    precision: Precision = "fp32",
    micro_batch: int | None = None,
    rate: float | None = None,
) -> DeviceWork:
    """What one device does in a step of so many examples.

    Args:
        net: its layers.
        cluster: of the device.
        per_device: examples of a step.
        precision: of the passes.
        micro_batch: examples of a pass at most; None for all in one.
        rate: examples a second that one device trains of this net alone; None for the file's share of the peak.

    Raises:
        UsageError: a count below 1, a rate not above 0, or neither a rate nor what would stand in for it.
    """
    micro = per_device if micro_batch is None else min(micro_batch, per_device)
    for name, count in (("per_device", per_device), ("micro_batch", micro)):
        if count < 1:
            raise UsageError(f"{name}={count}: must be 1 or more; raise it")
    if rate is None and precision not in cluster.peak_teraflops:
        rate = _measured(net, cluster, precision)
    if rate is None:
        work = _at_peak(net, cluster, per_device, precision, micro).scaled(1 / share_of_peak(cluster, precision))
    elif not 0 < rate < math.inf:
        raise UsageError(f"rate={rate:g}: must be a number of {net.unit} a second above 0; correct it")
    else:
        work = _relative(net, cluster, per_device, precision, micro)
        work = work.scaled(per_device / rate / work.seconds)
    launch = cluster.launch_microseconds
    return work if launch is None else work.launched(launch.value * 1e-6)


def _measured(net: NetTable, cluster: ClusterFile, precision: Precision) -> float | None:
    """This net's own rate, where a file has one."""
    rates = (own.value for own in cluster.rates if own.precision == precision and shipped_net(own.net) is net)
    return next(rates, None)


def _relative(net: NetTable, cluster: ClusterFile, per_device: int, precision: Precision, micro: int) -> DeviceWork:
    """How layers compare, where their sum is known: by the peak, or by operations alone where the file has none."""
    try:
        return _at_peak(net, cluster, per_device, precision, micro)
    except UsageError:
        passes = math.ceil(per_device / micro)
        return DeviceWork(passes, net.forward_flops + 1, net.backward_flops + 1, 0.0)


def memory_bytes(net: NetTable, micro_batch: int, precision: Precision = "fp32", optimizer_bytes: int = 4) -> float:
    """Of a device: weights, gradients, the optimizer's state, and what forward keeps for backward.

    Work space of libraries and fragments come on top, so this is what at least is needed.

    Args:
        net: its layers.
        micro_batch: examples of a pass.
        precision: of the passes.
        optimizer_bytes: its state, of a parameter: 4 of momentum, 8 of Adam.
    """
    state = float(net.parameters.sum()) * (_STATE_BYTES + optimizer_bytes)
    return state + micro_batch * float(net.kept_bytes.sum()) * _SCALE[precision]


def largest_micro_batch(
    net: NetTable, cluster: ClusterFile, precision: Precision = "fp32", optimizer_bytes: int = 4
) -> int | None:
    """The most examples of a pass that fit on a device; 0 where not one does, None where its memory is not known."""
    if cluster.memory_gbyte is None:
        return None
    free = cluster.memory_gbyte.value * 1e9 - memory_bytes(net, 0, precision, optimizer_bytes)
    return max(math.floor(free / (memory_bytes(net, 1, precision, 0) - memory_bytes(net, 0, precision, 0))), 0)
