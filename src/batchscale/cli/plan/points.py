"""What `plan --from` reads: runs, studies, documents of `bench step`, tables -> measured points for `cost`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from batchscale.cost.planning.pace import MeasuredPoint
from batchscale.cost.planning.question import Trained
from batchscale.cost.ranges import DEVICES, PER_DEVICE, RATE
from batchscale.cost.speeds.series import SPEED_COLUMNS
from batchscale.cost.table import CsvRow, read_rows
from batchscale.errors import DataError, FolderError
from batchscale.records.result import Result, read_result
from batchscale.words import shown

_ONE_SERIES = ("source", "system", "model", "precision")
_NEEDED = ("devices", "per_device_batch")


def points_of(paths: Sequence[Path], trained: Trained, devices_per_host: int) -> list[MeasuredPoint]:
    """The measured steps of all paths.

    Args:
        paths: folders of runs or studies, JSON documents, CSV tables.
        trained: the plan's recipe, whose examples they count.
        devices_per_host: of the plan's cluster.

    Raises:
        DataError: one of them holds no speed, or that of something else.
    """
    points = [point for path in paths for point in _points(path, trained, devices_per_host)]
    for point in points:
        _check_point(point, devices_per_host)
    return points


def whole_hosts(devices: int, devices_per_host: int) -> int:
    """The least number that is not below, and a part of one host or whole hosts."""
    return devices if devices <= devices_per_host else -(-devices // devices_per_host) * devices_per_host


def _check_point(point: MeasuredPoint, devices_per_host: int) -> None:
    """Raise for a point that no such cluster has.

    Raises:
        DataError: names where it stands, and what is out of range.
    """
    whole, place = whole_hosts(point.devices, devices_per_host), shown(point.place)
    if whole != point.devices:
        raise DataError(
            f"{place}: devices={point.devices}: beyond one host of {devices_per_host} it must be a whole number of "
            f"hosts, such as {whole}; leave it out, or give the file of the cluster that was measured"
        )
    limits = {"devices": DEVICES, "per_device_batch": PER_DEVICE, "examples_per_second of a device": RATE}
    values = (point.devices, point.per_device, point.examples_per_second / point.devices)
    for (name, limit), value in zip(limits.items(), values, strict=True):
        if not limit.holds(value):
            raise DataError(f"{place}: {name}={value:g}: {limit.rule}; correct it")


def _points(path: Path, trained: Trained, devices_per_host: int) -> Iterator[MeasuredPoint]:
    if (path / "result.json").is_file():
        yield _of_run(path, read_result(path))
    elif path.is_dir():
        yield from _of_study(path)
    elif path.suffix == ".json":
        yield _of_document(path)
    else:
        yield from _of_table(path, trained, devices_per_host)


def _of_run(folder: Path, result: Result) -> MeasuredPoint:
    if result.status == "failed" or not result.images_per_second:
        raise DataError(
            f"--from={shown(str(folder))}: this run measured no speed (status {result.status}); give one that has ended"
        )
    minibatch = result.workers * result.per_worker
    return MeasuredPoint(
        result.processes, minibatch / result.processes, minibatch / result.images_per_second, str(folder)
    )


def _of_study(folder: Path) -> Iterator[MeasuredPoint]:
    """The runs of a study's folder that have ended."""
    results = sorted(folder.glob("runs/*/result.json"))
    points = []
    for path in results:
        result = read_result(path.parent)
        if result.status != "failed" and result.images_per_second:
            points.append(_of_run(path.parent, result))
    if not points:
        raise DataError(
            f"--from={shown(str(folder))}: holds no run that has ended, and is no run; give folders of runs or of "
            f"studies, a document of bench step --json, or a CSV"
        )
    yield from points


def _of_document(path: Path) -> MeasuredPoint:
    from batchscale.bench.documents import StepDocument, read_document

    try:
        document = read_document(path)
    except FolderError as error:
        raise DataError(f"--from={shown(str(path))}: {error}; give a document of bench step --json") from None
    ours = [row for row in document.rows if getattr(row, "name", "") == "batchscale"]
    if not isinstance(document, StepDocument) or not ours:
        raise DataError(f"--from={shown(str(path))}: says nothing of a step; give a document of bench step --json")
    images = document.minibatch["images"]
    return MeasuredPoint(
        document.processes, images / document.processes, images / ours[0].images_per_second, str(path)  # type: ignore[union-attr]
    )  # fmt: skip


def _of_table(path: Path, trained: Trained, devices_per_host: int) -> Iterator[MeasuredPoint]:
    """The rows of a CSV, all of one series."""
    first: CsvRow | None = None
    for row in read_rows(path, _NEEDED, SPEED_COLUMNS):
        first = first or row
        for column in _ONE_SERIES:
            if row.text(column) != first.text(column):
                raise DataError(
                    f"{row.place}: {column}={shown(row.text(column))}, and {shown(first.text(column))} above: a plan "
                    f"goes by one series; give a table that holds it alone"
                )
        if row.text("devices_per_host") and row.count("devices_per_host") != devices_per_host:
            raise DataError(
                f"{row.place}: devices_per_host={row.text('devices_per_host')}, and the cluster's file says "
                f"{devices_per_host}; give the file of the cluster that was measured"
            )
        yield _of_row(row, trained)


def _of_row(row: CsvRow, trained: Trained) -> MeasuredPoint:
    column = next(column for column in SPEED_COLUMNS if column in row.cells)
    word, each = trained.parts
    unit = row.text("unit") or trained.examples
    if unit not in {trained.examples, word}:
        units = " or ".join(filter(None, (trained.examples, word)))
        raise DataError(f"{row.place}: unit={shown(unit)}: {trained.recipe} counts {units}; convert the speeds")
    speed = row.positive(column) / (each if unit == word else 1)
    devices, per_device = row.count("devices"), row.positive("per_device_batch")
    return MeasuredPoint(devices, per_device, devices * per_device / speed, row.place)
