"""Figures and tables of scaling over workers, the published series beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.study.evidence.published import UNET, UNET_PER_GPU
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.question import STRONG, WEAK, Question
from batchscale.study.workers.answer import Answer, Place, known
from batchscale.study.workers.question import workers_of

_WORKERS = Axis(label="workers k (published: GPUs)", scale="log2")
_PYTORCH = ("PyTorch DDP", "PyTorch Horovod")
_SOURCE = (
    f" Published: a U-Net on V100 GPUs, {UNET_PER_GPU} images each, Adam with lr 1e-3 x GPUs, no warmup, other images, "
    f"one run a point; its IoU is of one process's shard only."
)


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[Figure]:
    """Score and loss against k; the shard's score; the minibatch of the fall against N."""
    judged, name = answer.judged, answer.judged.score.name
    published = case.question.with_unet
    yield Figure(
        id=f"{name}-workers",
        title=f"{name.capitalize()} against workers",
        caption=f"Mean final {judged.words}; whiskers: standard deviation over seeds (n - 1), the two runs of two "
        f"seeds.{_SOURCE if published and name == 'iou' else ''}",
        x=_WORKERS,
        y=Axis(label=judged.label),
        series=(*_curves(answer, False), *(_published(case, False) if published and name == "iou" else ())),
    )
    yield Figure(
        id="loss-workers",
        title="Training loss against workers",
        caption=f"Of the last epoch, mean over seeds.{_SOURCE if published else ''}",
        x=_WORKERS,
        y=Axis(label="training loss", scale="log10"),
        series=(*_curves(answer, True), *(_published(case, True) if published else ())),
    )
    if WEAK in case.question.modes:
        yield _shard_figure(case, answer)
    if len(answer.falls) > 1:
        yield _fall_figure(case, answer)


def _curves(answer: Answer, losses: bool) -> Iterator[Series]:
    for mode, way in dict.fromkeys((p.mode, p.way) for p in answer.places):
        places = answer.of(mode, way)
        points = [place.losses if losses else place.scores for place in places]
        bands = [point.band() for point in points]
        yield Series(
            name=f"{mode}, {way}",
            x=tuple(place.workers for place in places),
            y=tuple(known(point.mean) for point in points),
            low=tuple(band and band[0] for band in bands) if any(bands) else (),
            high=tuple(band and band[1] for band in bands) if any(bands) else (),
            runs=tuple(place.folder for place in places),
        )


def _published(case: Case[Question], losses: bool) -> Iterator[Series]:
    for framework in _PYTORCH:
        points = [point for point in UNET[framework] if point.gpus <= max(workers_of(case))]
        yield Series(
            name=f"{framework} (published)",
            x=tuple(point.gpus for point in points),
            y=tuple(point.train_loss if losses else 100 * point.test_iou for point in points),
            style="points",
        )


def _shard_figure(case: Case[Question], answer: Answer) -> Figure:
    places, judged = answer.of(WEAK, case.question.ways[0]), answer.judged
    parts = {"the whole evaluation set": [p.whole for p in places], "its first 1/k": [p.shards for p in places]}
    return Figure(
        id="shard",
        title=f"{judged.score.name.capitalize()} of the whole evaluation set and of its first 1/k",
        caption=f"Weak scaling by the way {case.question.ways[0]}, by the same weights, means over seeds; batch norm "
        "by its running averages.",
        x=_WORKERS,
        y=Axis(label=judged.label),
        series=tuple(
            Series(name=name, x=tuple(p.workers for p in places), y=tuple(known(point.mean) for point in points))
            for name, points in parts.items()
        ),
    )


def _fall_figure(case: Case[Question], answer: Answer) -> Figure:
    return Figure(
        id="fall",
        title="Where the score falls, against the size of the training set",
        caption="The kn at which the mean leaves the 95 % interval of the smallest k, interpolated in log2 kn, or the "
        "largest that was tried, where it does not leave it; the same epochs at every N. A gap: there is no interval.",
        x=Axis(label="training examples N", scale="log2"),
        y=Axis(label="minibatch kn", scale="log2"),
        series=(
            Series(
                name=f"weak, {case.question.ways[0]}",
                x=tuple(fall.examples for fall in answer.falls),
                y=tuple(fall.minibatch for fall in answer.falls),
            ),
            Series(
                name="not left up to",
                x=tuple(fall.examples for fall in answer.falls),
                y=tuple(fall.within if fall.minibatch is None else None for fall in answer.falls),
                style="points",
            ),
        ),
    )


def tables(case: Case[Question], answer: Answer) -> Iterator[Table]:
    """Every mode; the shard; the fall; the published series."""
    for mode in case.question.modes:
        yield _mode_table(answer, mode)
    if WEAK in case.question.modes:
        yield _shard_table(answer)
    if len(answer.falls) > 1:
        yield _fall_table(answer)
    if case.question.with_unet:
        yield _published_table(case)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _mode_table(answer: Answer, mode: str) -> Table:
    judged = answer.judged
    return Table(
        title=f"{mode.capitalize()} scaling over workers",
        columns=(
            "way", "part of the data", "workers k", "minibatch kn", "training loss", judged.label, "deviation",
            f"each seed {judged.unit_words}".rstrip(),
        ),
        rows=tuple(
            (
                p.way, p.fraction, p.workers, p.minibatch, _rounded(known(p.losses.mean), 4),
                _rounded(known(p.scores.mean)), _rounded(p.scores.deviation()),
                ", ".join(f"{value:.2f}" for value in p.scores.errors if known(value) is not None) or None,
            )
            for p in answer.places if p.mode == mode
        ),
        caption=f"Training loss of the last epoch and final {judged.words}: means over seeds."
        + (" kn is fixed: n = kn / k." if mode == STRONG else ""),
    )  # fmt: skip


def _shard_table(answer: Answer) -> Table:
    judged = answer.judged
    return Table(
        title="The whole evaluation set, and its first 1/k",
        columns=("way", "workers k", f"{judged.label}, whole", "first 1/k", "first 1/k - whole"),
        rows=tuple(_shard_row(place) for place in answer.of(WEAK)),
        caption="By the last weights of the same runs, means over seeds, batch norm by its running averages. In file "
        "order, nothing shuffled.",
    )


def _shard_row(place: Place) -> tuple[str | float | None, ...]:
    whole, shard = known(place.whole.mean), known(place.shards.mean)
    apart = None if whole is None or shard is None else round(shard - whole, 3)
    return place.way, place.workers, _rounded(whole), _rounded(shard), apart


def _fall_table(answer: Answer) -> Table:
    return Table(
        title="Where the score leaves the interval of the smallest k",
        columns=("part of the data", "N", "interval from", "to", "falls at kn", "last kn within", "kn / N"),
        rows=tuple(
            (
                fall.fraction, fall.examples, _rounded(fall.low), _rounded(fall.high), _rounded(fall.minibatch, 1),
                fall.within, _rounded(fall.minibatch and fall.minibatch / fall.examples),
            )
            for fall in answer.falls
        ),
        caption="95 % interval of the mean over seeds. The same epochs at every N, so fewer steps at a smaller N.",
    )  # fmt: skip


def _published_table(case: Case[Question]) -> Table:
    rows = [
        (framework, point.gpus, UNET_PER_GPU * point.gpus, point.train_loss, round(100 * point.test_iou, 1))
        for framework in _PYTORCH
        for point in UNET[framework]
        if point.gpus <= max(workers_of(case))
    ]
    return Table(
        title="Published: weak scaling of a U-Net",
        columns=("framework", "GPUs", "minibatch", "training loss", "IoU of a shard (%)"),
        rows=tuple(rows),
        caption=_SOURCE.strip(),
    )
