"""The documents of ``bench ... --json``, declared once: measuring fills them in, a page reads them back. No torch.

Entries that have a default are missing in documents of earlier versions.

A benchmark's ``Findings`` hold its document as ``result``; saved as a JSON file it is known by its keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from batchscale.errors import FolderError
from batchscale.records.files import parse_json


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)  # of later versions


class Rate(_Entry):
    """A contender: medians, and the interquartile range of its images per second."""

    name: str
    images_per_second: float
    images_per_cpu_second: float
    iqr: float


class _Rates(_Entry):
    """Contenders beside each other.

    Attributes:
        ratios, ratio_iqr: name -> median over paired rounds, and interquartile range; None where one was not measured.
        ratio_interval: name -> ends of the 90 % interval of that median; None where the rounds are too few for one.
        verdicts: name -> "not slower", "slower" or "not resolved", by that interval, with a margin of 2 %.
        not_measurable_now: names of the ratios that are too unsteady to rely on.
        ratios_per_cpu_second, ratio_iqr_..., ratio_interval_...: the same of images per CPU-second.
        conditions: machine, versions, rounds; what the task calls the examples that images_per_second counts.
        notes: what was left out or changed.
    """

    recipe: str
    minibatch: dict[str, int]
    rows: list[Rate]
    ratios: dict[str, float | None]
    ratio_iqr: dict[str, float | None] = {}
    ratio_interval: dict[str, list[float] | None] = {}
    verdicts: dict[str, str] = {}
    not_measurable_now: list[str] = []
    ratios_per_cpu_second: dict[str, float | None] = {}
    ratio_iqr_per_cpu_second: dict[str, float | None] = {}
    ratio_interval_per_cpu_second: dict[str, list[float] | None] = {}
    conditions: dict[str, Any]
    notes: list[str] = []


class StepDocument(_Rates):
    """What ``bench step --json`` prints."""

    processes: int
    best_documented_peer: str | None = None


class MeasuredData(_Entry):
    """What the images of ``bench data`` are."""

    name: str
    what: str
    images: int
    mean_bytes: int | None = None
    image_shape: list[int] = []
    augment: dict[str, Any] = {}


class DataDocument(_Rates):
    """What ``bench data --json`` prints."""

    threads: int
    data: MeasuredData
    best_peer: str | None = None


class AllReduceRow(_Entry):
    """One algorithm at one size: median, interquartile range, bandwidth, and the cost that its schedule declares."""

    algorithm: str
    bytes: int
    seconds: float
    iqr_seconds: float = 0.0
    bus_gigabytes_per_second: float
    share_of_limit: float | None = None
    steps: int | None = None
    sent_bytes: int | None = None
    blocks: int | None = None
    repetitions: int | None = None


class AutoRow(_Entry):
    """The choice for one size, timed afresh beside the backend as torch ships it and as tuned here."""

    bytes: int
    algorithm: str
    seconds: float
    builtin_seconds: float
    builtin_tuned_seconds: float
    bus_gigabytes_per_second: float | None = None
    builtin_to_auto: float | None = None
    builtin_to_auto_iqr: float | None = None
    builtin_tuned_to_auto: float | None = None
    builtin_tuned_to_auto_iqr: float | None = None
    not_measurable_now: bool = False


class LimitRow(_Entry):
    """What copying so many bytes reaches: one process alone, each while all copy, all together."""

    bytes: int
    one_gigabytes_per_second: float | None = None
    each_gigabytes_per_second: float
    all_gigabytes_per_second: float | None = None


class AllReduceDocument(_Entry):
    """What ``bench allreduce --json`` prints."""

    processes: int
    rows: list[AllReduceRow]
    auto: list[AutoRow]
    fit: dict[str, Any] = {}
    limit: list[LimitRow]
    choice: dict[str, Any] = {}
    conditions: dict[str, Any]
    notes: list[str] = []


class Agreement(_Entry):
    """Whether a framework does the same work: its first losses beside batchscale's.

    Attributes:
        largest_difference: of a loss; infinite (in JSON null) where one is no number.
    """

    name: str
    processes: int
    optimizer: str
    tolerance: float
    largest_difference: float | None
    losses: list[float | None]

    @property
    def agrees(self) -> bool:
        """Within the tolerance."""
        return self.largest_difference is not None and self.largest_difference <= self.tolerance


class FrameworkRow(_Entry):
    """One framework over W processes: medians, the interquartile range, and what training gave.

    Attributes:
        series: "weak" (per_process as at W = 1) or "strong" (minibatch as at W = 1).
        seconds_per_epoch: training examples / examples_per_second.
        efficiency: examples_per_second / (W x that of W = 1); the two were not measured in turn.
        ratio, ratio_iqr: to batchscale, of paired rounds.
        loss: mean over the steps of the last epoch trained; score: of the test set after it.
    """

    name: str
    series: str
    processes: int
    per_process: int
    minibatch: int
    examples_per_second: float
    iqr: float
    examples_per_cpu_second: float
    seconds_per_epoch: float
    efficiency: float | None = None
    ratio: float | None = None
    ratio_iqr: float | None = None
    loss: float | None = None
    score: float | None = None


class FrameworksDocument(_Entry):
    """What ``bench frameworks --json`` prints.

    Attributes:
        processes: all W, ascending.
        oversubscribed: those above the cores.
        epochs: trained for loss and score.
        score: name, unit and direction.
        published: rows of the published weak series.
    """

    recipe: str
    overrides: list[str] = []
    processes: list[int]
    oversubscribed: list[int] = []
    minibatch: int
    training_examples: int
    epochs: int
    score: dict[str, str]
    agreement: list[Agreement]
    rows: list[FrameworkRow]
    published: list[dict[str, Any]] = []
    conditions: dict[str, Any]
    notes: list[str] = []


Document = StepDocument | DataDocument | AllReduceDocument | FrameworksDocument

_KNOWN_BY: dict[frozenset[str], type[Document]] = {
    frozenset({"rows", "ratios", "processes"}): StepDocument,
    frozenset({"rows", "ratios", "threads", "data"}): DataDocument,
    frozenset({"rows", "auto", "limit", "processes"}): AllReduceDocument,
    frozenset({"rows", "agreement", "published", "processes"}): FrameworksDocument,
}
"""Keys by which a saved document is known."""


def read_document(path: Path) -> Document:
    """A saved document.

    Raises:
        FolderError: it is no result of bench, or damaged; the message is the reason alone.
    """
    try:
        content: Any = parse_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        raise FolderError("is not JSON") from None
    keys = content.keys() if isinstance(content, dict) else set()
    kind = next((kind for known, kind in _KNOWN_BY.items() if keys >= known), None)
    if kind is None:
        raise FolderError("is no result of bench")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise FolderError(f"is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
