"""The section of docs/planner.md on tables of another form: a U-Net by framework, and MLPerf by system."""

# ruff: noqa: E501 (a line of the page is a sentence)
from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from batchscale.cost.clusters.cluster import read_cluster
from batchscale.cost.planning.estimate import LEVEL
from batchscale.cost.planning.pace import MeasuredPoint, Pace
from batchscale.cost.planning.physics import LayerPhysics
from batchscale.cost.speeds.scores import median_error
from batchscale.cost.speeds.series import read_series
from batchscale.cost.speeds.validate import Validation, validate
from batchscale.cost.step.net_table import shipped_net

NET = "resnet50-3x224x224"
SYSTEMS = {"DGX-A100": "dgx-a100", "XE8545 4xA100-40": "xe8545"}
_COLUMNS = ("source", "system", "model", "devices", "devices_per_host", "per_device_batch", "precision", "images_per_second")  # fmt: skip
_IMAGES = 1120  # of an epoch: only ratios count


def unet(table: Path, each: int) -> Validation:
    """The U-Net's series, from their two smallest device counts of hosts of so many."""
    with tempfile.TemporaryDirectory() as folder, table.open(encoding="utf-8") as source:
        path = Path(folder) / "unet.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for row in csv.DictReader(source):
                speed = _IMAGES / float(row["seconds_per_epoch"])
                writer.writerow(["unet", row["framework"], "unet", row["gpus"], each, 16, "", speed])
        return validate(read_series([path]), "two")


def unet_rows(table: Path) -> Iterator[str]:
    """Each framework, as the lines of a table."""
    by_each = {each: unet(table, each).judged for each in (1, 2)}
    yield "| framework | from 1 and 2 GPUs: median error % | baseline's | from 2 and 4 | baseline's |"
    yield "| --- | --- | --- | --- | --- |"
    for first, second in zip(by_each[1], by_each[2], strict=True):
        cells = []
        for one in (first, second):
            cells += [
                f"{median_error(one.points):.1f}",
                f"{np.median([p.baseline_error_percent for p in one.points]):.1f}",
            ]
        yield f"| {first.series.name.system} | {' | '.join(cells)} |"


def mlperf_points(table: Path, system: str) -> list[MeasuredPoint]:
    """Of one system, at rising device counts."""
    points = []
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["system"] == system:
                devices, minibatch = int(row["accelerators"]), float(row["global_minibatch"])
                points.append(
                    MeasuredPoint(devices, minibatch / devices, minibatch / float(row["images_per_second"]), "")
                )
    return sorted(points, key=lambda point: point.devices)


def mlperf_rows(table: Path) -> Iterator[str]:
    """Each system beyond its two smallest counts, as the lines of a table."""
    yield "| system | devices | images each | measured step | predicted (90 %) | off by | with PyTorch's launches |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for system, name in SYSTEMS.items():
        points, cluster = mlperf_points(table, system), read_cluster(name)
        paces = [
            Pace(LayerPhysics(shipped_net(NET), one, "fp16", None), cluster.devices_per_host.value, tuple(points[:2]))
            for one in (cluster.model_copy(update={"launch_microseconds": None}), cluster)
        ]
        for point in points[2:]:
            (value, low, high), (launched, _, _) = (predicted(pace, point) for pace in paces)
            off, other = (100 * (seconds / point.seconds - 1) for seconds in (value, launched))
            yield (
                f"| {system} | {point.devices:,} | {point.per_device:.0f} | {1e3 * point.seconds:.1f} ms | "
                f"{1e3 * value:.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f}) | {round(off):+d} % | {round(other):+d} % |"
            )


def predicted(pace: Pace, point: MeasuredPoint) -> tuple[float, float, float]:
    """Seconds of a step, with the ends of their interval."""
    devices, each = np.array([float(point.devices)]), round(point.per_device)
    logs = pace.physics.best(devices, each)[1]
    ends = np.quantile(logs + pace.corrections(devices, each), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(np.exp(logs + pace.middle(devices))[0]), float(np.exp(ends[0])), float(np.exp(ends[1]))


def section(reference: Path) -> str:
    """The whole section."""
    return "\n".join([
        "## Tables of another form", "",
        "A U-Net on V100s, 16 images each, by framework; the table does not say how many devices a host has.",
        "With hosts of one, one and two devices calibrate, and leaving a host of two counts as a doubling; with hosts of two, two and four do:", "",
        *unet_rows(reference / "unet_weak_scaling.csv"), "",
        "Where only the step to the second device is known, pytorch_horovod, which loses 45 % there, is off by 20 %, and tensorflow_native, which loses 14 % between 2 and 4, by 13 %.",
        "Nothing of these tables is fitted.", "",
        "MLPerf's ResNet-50 changes the images a device from row to row, so its two smallest counts lead a plan's step time, and physics brings them to other minibatches:", "",
        *mlperf_rows(reference / "mlperf_resnet50_throughput.csv"), "",
        "Its times hold evaluation, and its software, MXNet, hands over layers faster than PyTorch did: at 73 us a layer physics alone has no step of ResNet-50 shorter than 21 ms, and MLPerf's is 12 ms at 16 images a device.",
        "So with small minibatches the truth lies between the two columns, and a plan for other software than PyTorch without compiled passes takes `--launch`.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    import sys

    print(section(Path(sys.argv[1])))
