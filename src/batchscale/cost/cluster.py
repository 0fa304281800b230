"""Clusters as files: hosts, devices and links, every number with its source (clusters/*.yaml)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batchscale.cost.links import Link
from batchscale.errors import DataError
from batchscale.words import did_you_mean, shown

Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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


class ClusterFile(_Part):
    """What a plan knows of a cluster; a number that no source gives is left out.

    Args:
        device: what it is called.
        devices_per_host: of a host.
        hosts: as many as there are.
        inside_gbyte_per_second: of a device's links inside a host, both directions together.
        between_gbit_per_second: of a host's links to the others, one direction.
        between_microseconds: of one step between hosts without bytes.
    """

    device: str
    devices_per_host: SourcedCount
    between_gbit_per_second: Sourced
    hosts: SourcedCount | None = None
    inside_gbyte_per_second: Sourced | None = None
    between_microseconds: Sourced | None = None

    def link(self) -> Link:
        """Between hosts; without a latency, which leaves a bound a bound, where none is known."""
        latency = self.between_microseconds
        return Link(self.between_gbit_per_second.value, latency.value if latency is not None else 0.0)


def cluster_names() -> list[str]:
    """Of the shipped files."""
    folder = resources.files("batchscale.cost").joinpath("clusters")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read_cluster(name: str) -> ClusterFile:
    """A shipped cluster by its name, or one's own by its file.

    Raises:
        DataError: there is none, or it is none.
    """
    names = cluster_names()
    if name in names:
        text = resources.files("batchscale.cost").joinpath("clusters", f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise DataError(
                f"--cluster={shown(name)}: no file that can be read, and no shipped cluster; "
                f"{did_you_mean(name, names)}shipped are {', '.join(names)}"
            ) from None
    try:
        return ClusterFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise DataError(f"{shown(name)}: not a YAML document ({' '.join(str(error).split())}); correct it") from None
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(
            f"{shown(name)}: {entry}: {first['msg']}; every number is a mapping of value (above 0) and source"
        ) from None
