"""A cluster file of this machine, from what benchmarks have measured: `--cluster this-machine`.

Devices are processes of one thread on the cores of one host. Their rate is that of batchscale's own row of `bench step`
on as many processes as there are cores, or more, so it has the feed and the update in it; the all-reduces of this row
are taken off, as `bench allreduce` has measured them, before or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscale.cost.clusters.cluster import THIS_MACHINE, ClusterFile, MeasuredRate, machine_file, read_cluster
from batchscale.cost.ranges import OF_CLUSTER
from batchscale.cost.step.all_reduce_time import all_reduce_seconds
from batchscale.cost.step.net_table import shipped_net
from batchscale.errors import DataError
from batchscale.members import ALL_REDUCES, BACKENDS
from batchscale.records.files import write_json

_MOST_PROCESSES = 4096
SHARED_MEMORY = "shared_memory"
"""The all-reduce of processes of one host."""

_LINK_OF = (SHARED_MEMORY, "builtin")
"""Whose fitted alpha and beta stand for W that were not measured, best first."""


def keep_step(document: Mapping[str, Any], net: str | None) -> Path | None:
    """Add the rate of a device to this machine's file.

    Args:
        document: of `bench step`.
        net: name of the table of the net that was trained; None where none is shipped.

    Returns:
        The file; None where nothing of it can be used: no such table, no row, or a process had several threads.

    Raises:
        OSError: it cannot be written.
    """
    cores, processes = document["conditions"]["cores"], document["processes"]
    own = next((row for row in document["rows"] if row["name"] == "batchscale"), None)
    if net is None or own is None or processes < cores:
        return None
    images = document["minibatch"]["images"]
    entry = {
        "net": net,
        "precision": "fp32",
        "per_device": max(images // processes, 1),
        "value": own["images_per_second"] / cores,
        "step": {"devices": processes, "examples": images, "seconds": images / own["images_per_second"]},
        "source": _source(document, f"bench step {document['recipe']} with {processes} processes"),
    }
    machine = _so_far(document)
    rates = [rate for rate in machine["rates"] if rate["net"] != net]
    return _written(machine | {"rates": [entry, *rates]})


def _alone(cluster: ClusterFile, rate: MeasuredRate) -> MeasuredRate:
    """The rate without the sum of the step's gradients, where that was measured between as many processes."""
    step, cores = rate.step, cluster.cores_per_host
    measured = {points.devices for points in cluster.all_reduce if points.algorithm == SHARED_MEMORY}
    if step is None or cores is None or step.devices not in measured:
        return rate
    gradients = float(shipped_net(rate.net).gradient_bytes.sum())
    summing = float(all_reduce_seconds(SHARED_MEMORY, cluster, step.devices, gradients)[0])
    # The two were measured in different minutes: what they leave is never less than half.
    seconds = step.seconds - min(summing, step.seconds / 2)
    return rate.model_copy(update={"value": step.examples / seconds / cores.value})


def keep_all_reduces(document: Mapping[str, Any]) -> Path:
    """Add the all-reduces between so many processes to this machine's file.

    Args:
        document: of `bench allreduce`.

    Raises:
        OSError: it cannot be written.
    """
    processes, source = document["processes"], _source(document, "bench allreduce")
    points = []
    for name in (*BACKENDS, *ALL_REDUCES):
        rows = sorted((row["bytes"], row["seconds"]) for row in document["rows"] if row["algorithm"] == name)
        if len(rows) > 1:
            sizes, seconds = zip(*rows, strict=True)
            entry = {"bytes": [float(size) for size in sizes], "seconds": list(seconds), "source": source}
            points.append({"algorithm": name, "devices": processes} | entry)
    machine = _so_far(document)
    others = [entry for entry in machine["all_reduce"] if entry["devices"] != processes]
    return _written(machine | {"all_reduce": [*points, *others]} | _link(document, source))


def _link(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fitted alpha and beta of the first algorithm that has both, as a cluster's file may have them."""
    for name in _LINK_OF:
        fit = document.get("fit", {}).get(name)
        if fit and fit["alpha_seconds"] > 0 and fit["beta_seconds_per_byte"] > 0:
            source = f"{source}, {name} fitted over {document['processes']} processes"
            link = {
                "inside_microseconds": fit["alpha_seconds"] * 1e6,
                "inside_gbyte_per_second": 2e-9 / fit["beta_seconds_per_byte"],
            }
            if all(OF_CLUSTER[entry].holds(value) for entry, value in link.items()):
                return {entry: {"value": value, "source": source} for entry, value in link.items()}
    return {}


def _source(document: Mapping[str, Any], what: str) -> str:
    conditions = document["conditions"]
    return (
        f"measured by batchscale {what}, {conditions['date'][:10]}, torch {conditions['torch']}, load "
        f"{conditions['load_average']:g}"
    )


def _so_far(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds of this machine; the bare machine where it holds none, or another one."""
    conditions = document["conditions"]
    source = _source(document, "bench")
    device = f"a core of {conditions['cpu']}"
    bare = {
        "device": device,
        "hosts": {"value": 1, "source": source},
        "devices_per_host": {"value": _MOST_PROCESSES, "source": "processes: as many as one likes, on the same cores"},
        "cores_per_host": {"value": conditions["cores"], "source": source},
        "rates": [],
        "all_reduce": [],
    }
    try:
        kept = read_cluster(THIS_MACHINE)
    except DataError:
        return bare
    same = (
        kept.device == device and kept.cores_per_host is not None and kept.cores_per_host.value == conditions["cores"]
    )
    return bare | kept.model_dump(mode="json", exclude_none=True) if same else bare


def _written(machine: Mapping[str, Any]) -> Path:
    file = machine_file()
    cluster = ClusterFile.model_validate(machine)
    cluster = cluster.model_copy(update={"rates": [_alone(cluster, rate) for rate in cluster.rates]})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, cluster.model_dump(mode="json", exclude_none=True))
    return file
