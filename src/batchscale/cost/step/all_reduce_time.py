"""The seconds of an all-reduce over a cluster's links: rounds times alpha plus bytes times beta, of both kinds of link.

Where a cluster's file has measured times of an algorithm between so many devices of one host, they stand instead,
linear between their sizes in logarithms and along the outermost two beyond: caches have more than one beta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchscale.comm.collectives.traffic import Traffic
from batchscale.cost.clusters.cluster import ClusterFile, MeasuredAllReduce
from batchscale.cost.clusters.links import Link
from batchscale.cost.step.net_table import Floats
from batchscale.errors import UsageError
from batchscale.members import ALL_REDUCES, BACKENDS

ALGORITHMS = ("ring", "halving_doubling", "binary_blocks", "torus", "hierarchical", "three_phase", "direct")
"""Those that `auto` chooses among, with those that were measured; one of a plugin may be named."""
_BY_NAME = {"builtin": "ring", "shared_memory": "direct"}  # Gloo's, and NCCL's for large buffers, is a ring


class AllReduceTime:
    """An algorithm at many device counts.

    Args:
        algorithm: a member of the all-reduces; a backend's own counts as the algorithm that it is.
        cluster: devices a host, and the links; what its file leaves out costs nothing.
        devices: W, counts inside one host, or whole hosts (n).

    Raises:
        UsageError: an unknown algorithm, or counts that are none.
        DataError: more than one host of a cluster that has one.
    """

    def __init__(self, algorithm: str, cluster: ClusterFile, devices: Floats) -> None:
        self._devices = devices
        self._fixed, self._of_a_byte = _line(traffic_of(algorithm, cluster, devices), cluster, devices)
        self._measured = [points for points in cluster.all_reduce if points.algorithm == algorithm]

    def seconds(self, num_bytes: float) -> Floats:
        """Of a buffer of so many bytes (n); infinite where the algorithm is not made for W, or not priced."""
        seconds = np.where(self._devices > 1, self._fixed + self._of_a_byte * num_bytes, 0.0)
        for points in self._measured:
            seconds[self._devices == points.devices] = _between_points(points, num_bytes)
        return seconds


def all_reduce_seconds(algorithm: str, cluster: ClusterFile, devices: npt.ArrayLike, num_bytes: float) -> Floats:
    """Of one all-reduce, seconds (n); see ``AllReduceTime``."""
    return AllReduceTime(algorithm, cluster, np.atleast_1d(np.asarray(devices, np.float64))).seconds(num_bytes)


def chosen_among(algorithm: str, cluster: ClusterFile) -> Sequence[str]:
    """The algorithms that a name stands for: auto for all of them."""
    if algorithm != "auto":
        return (algorithm,)
    return tuple(dict.fromkeys((*ALGORITHMS, *(points.algorithm for points in cluster.all_reduce))))


def traffic_of(algorithm: str, cluster: ClusterFile, devices: Floats) -> Traffic:
    """What an all-reduce of the cluster's layout puts on its links.

    Raises:
        UsageError: an unknown algorithm, or counts that are none.
    """
    each = cluster.devices_per_host.value
    wrong = devices[(devices < 1) | (devices != np.round(devices)) | ((devices > each) & (devices % each != 0))]
    if wrong.size:
        hosts = max(math.ceil(float(wrong[0]) / each), 1) if math.isfinite(wrong[0]) else 1
        raise UsageError(
            f"devices={wrong[0]:g}: must be at least 1, and beyond one host of {each} a whole number of hosts; use "
            f"{hosts * each}"
        )
    kind = ALL_REDUCES.named(_BY_NAME.get(algorithm, algorithm), "algorithm", ("auto", *BACKENDS))
    traffic: Traffic = kind.traffic(np.ceil(devices / each), np.minimum(devices, each))
    return traffic


def _line(traffic: Traffic, cluster: ClusterFile, devices: Floats) -> tuple[Floats, Floats]:
    """Seconds without bytes and seconds a byte of both links (n)."""
    free = Link(math.inf, 0.0)
    between = cluster.link() if devices.max() > cluster.devices_per_host.value else free
    links = cluster.inside() or free, between
    made = np.isfinite(traffic.inside_rounds + traffic.between_rounds)
    fixed, of_a_byte = np.where(made, 0.0, np.inf), np.zeros_like(traffic.inside_share)
    rounds_and_shares = (traffic.inside_rounds, traffic.inside_share), (traffic.between_rounds, traffic.between_share)
    for link, (rounds, share) in zip(links, rounds_and_shares, strict=True):
        fixed = fixed + np.where(made, rounds, 0.0) * link.microseconds * 1e-6  # no latency times infinite rounds
        of_a_byte = of_a_byte + share * 8 / (link.gbit_per_second * 1e9)
    return fixed, of_a_byte


def _between_points(points: MeasuredAllReduce, num_bytes: float) -> float:
    sizes, seconds = np.log(points.bytes), np.log(points.seconds)
    place = int(np.clip(np.searchsorted(sizes, math.log(num_bytes)) - 1, 0, len(sizes) - 2))
    slope = (seconds[place + 1] - seconds[place]) / (sizes[place + 1] - sizes[place])
    return math.exp(seconds[place] + slope * (math.log(num_bytes) - sizes[place]))
