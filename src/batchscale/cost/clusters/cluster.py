"""Clusters as files: hosts, devices and links, every number with its source (clusters/*.yaml)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from batchscale.cost.clusters.links import Link
from batchscale.cost.clusters.refusals import check_range, explained, parsed
from batchscale.cost.ranges import OF_CLUSTER
from batchscale.errors import DataError
from batchscale.words import did_you_mean, shown

Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Of a device's passes; mixed precision is named by its low type."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sourced(_Part):
    """A number above 0, and where it is from."""

    value: Above
    source: str = Field(min_length=8)


class SourcedCount(_Part):
    """A whole number of at least 1, and where it is from."""

    value: int = Field(ge=1)
    source: str = Field(min_length=8)


class MeasuredStep(_Part):
    """A step that was measured, the sum of its gradients included.

    Args:
        devices: W.
        examples: of all devices.
        seconds: of the step.
    """

    devices: int = Field(ge=1)
    examples: int = Field(ge=1)
    seconds: Above


class MeasuredRate(Sourced):
    """Examples a second that one device trains of a net, which says what share of its peak such nets reach.

    Args:
        net: name of a shipped table.
        precision: of the passes.
        per_device: examples of a step.
        step: where the rate is taken from a step with its all-reduces: that step.
    """

    net: str
    precision: Precision
    per_device: int = Field(ge=1)
    step: MeasuredStep | None = None


class MeasuredAllReduce(_Part):
    """Seconds that an all-reduce took between so many devices of one host, in place of the links' numbers.

    Args:
        algorithm: that was measured.
        devices: W.
        bytes: of each buffer, rising.
        seconds: of each.
        source: where they are from.
    """

    algorithm: str
    devices: int = Field(ge=2)
    bytes: list[Above] = Field(min_length=2)
    seconds: list[Above]
    source: str = Field(min_length=8)

    @model_validator(mode="after")
    def _pairs_rise(self) -> Self:
        if len(self.seconds) != len(self.bytes) or sorted(set(self.bytes)) != self.bytes:
            raise ValueError("bytes must rise, and each have its seconds")
        return self


class ClusterFile(_Part):
    """What a plan knows of a cluster; a number that no source gives is left out.

    Args:
        device: what it is called.
        devices_per_host: of a host.
        between_gbit_per_second: of a host's links to the others, one direction.
        between_microseconds: of one round between hosts without bytes.
        hosts: as many as there are.
        inside_gbyte_per_second: of a device's links inside a host, both directions together.
        inside_microseconds: of one round inside a host without bytes.
        peak_teraflops: of a device, by precision.
        memory_gbyte: of a device.
        memory_gbyte_per_second: to and from a device's memory.
        rates: measured, of one device.
        launch_microseconds: that the host takes at least to hand a device one layer of a pass.
        jitter_percent: standard deviation of a device's compute time, from device to device and step to step.
        price_per_device_hour: in US dollars.
        device_mtbf_hours: mean time between failures that end a run, of one device with its share of host and network.
        cores_per_host: where devices are processes on a host's cores: more of them share these, and a core that sums
            gradients does not compute meanwhile.
        all_reduce: measured inside one host.
    """

    device: str
    devices_per_host: SourcedCount
    between_gbit_per_second: Sourced | None = None
    between_microseconds: Sourced | None = None
    hosts: SourcedCount | None = None
    inside_gbyte_per_second: Sourced | None = None
    inside_microseconds: Sourced | None = None
    peak_teraflops: Mapping[Precision, Sourced] = {}
    memory_gbyte: Sourced | None = None
    memory_gbyte_per_second: Sourced | None = None
    rates: list[MeasuredRate] = []
    launch_microseconds: Sourced | None = None
    jitter_percent: Sourced | None = None
    price_per_device_hour: Sourced | None = None
    device_mtbf_hours: Sourced | None = None
    cores_per_host: SourcedCount | None = None
    all_reduce: list[MeasuredAllReduce] = []

    @model_validator(mode="after")
    def _hosts_are_linked(self) -> Self:
        if self.between_gbit_per_second is None and (self.hosts is None or self.hosts.value > 1):
            raise ValueError(
                "between_gbit_per_second: missing, and there may be more than one host; add it, or say that there is "
                'one: hosts: {value: 1, source: "..."}'
            )
        return self

    def link(self) -> Link:
        """Between hosts; without a latency, which leaves a bound a bound, where none is known.

        Raises:
            DataError: there is one host alone.
        """
        if self.between_gbit_per_second is None:
            raise DataError("cluster: has one host, and no link to another; stay inside it, or give another cluster")
        latency = self.between_microseconds
        return Link(self.between_gbit_per_second.value, latency.value if latency is not None else 0.0)

    def inside(self) -> Link | None:
        """Of a device to the others of its host, one direction; None where nothing is known of it."""
        if self.inside_gbyte_per_second is None:
            return None
        latency = self.inside_microseconds
        return Link(self.inside_gbyte_per_second.value / 2 * 8, latency.value if latency is not None else 0.0)

    def left_out(self) -> list[str]:
        """Names of the numbers that no source gives."""
        return [name for name in type(self).model_fields if getattr(self, name) in (None, {}, [])]


def cluster_names() -> list[str]:
    """Of the shipped files."""
    folder = resources.files("batchscale.cost.clusters")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


THIS_MACHINE = "this-machine"
"""The cluster that `batchscale bench` measures."""


def machine_file() -> Path:
    """Where what was measured of this machine is kept: XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "batchscale" / f"{THIS_MACHINE}.json"


def read_cluster(name: str) -> ClusterFile:
    """A shipped cluster by its name, or one's own by its file.

    Raises:
        DataError: there is none, or it is none.
    """
    names = cluster_names()
    if name in names:
        text = resources.files("batchscale.cost.clusters").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = (machine_file() if name == THIS_MACHINE else Path(name)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            if name == THIS_MACHINE:
                raise DataError(
                    f"--cluster={name}: nothing is measured of this machine yet; run batchscale bench step and "
                    f"batchscale bench allreduce first"
                ) from None
            raise DataError(
                f"--cluster={shown(name)}: no file that can be read, and no shipped cluster; "
                f"{did_you_mean(name, names)}shipped are {', '.join(names)}, and {THIS_MACHINE} once it was measured"
            ) from None
    try:
        cluster = ClusterFile.model_validate(parsed(text, name))
    except ValidationError as error:
        lists = {"rates": MeasuredRate.model_fields, "all_reduce": MeasuredAllReduce.model_fields}
        raise explained(error, name, {"": ClusterFile.model_fields, **lists}) from None
    _check_ranges(cluster, name)
    return cluster


def _check_ranges(cluster: ClusterFile, name: str) -> None:
    """Raise for a number that no cluster has.

    Raises:
        DataError: names the first.
    """
    for entry in OF_CLUSTER:
        content = getattr(cluster, entry)
        if isinstance(content, Sourced | SourcedCount):
            check_range(name, f"{entry}.value", content.value, entry)
    for precision, peak in cluster.peak_teraflops.items():
        check_range(name, f"peak_teraflops.{precision}.value", peak.value, "peak_teraflops")
    for place, rate in enumerate(cluster.rates):
        check_range(name, f"rates[{place}].value", rate.value, "rates")
