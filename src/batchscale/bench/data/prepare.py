"""A recipe turned into the assignments of all contenders: minibatches without end, of images that all can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batchscale.bench.data.assignment import DataAssignment
from batchscale.bench.data.contenders import FEED, IN_MEMORY, PROCESSES
from batchscale.bench.data.contenders import ON_DISK as ON_DISK_CONTENDERS
from batchscale.bench.data.sample import PHOTOGRAPHS, Photographs, Sample, photographs, write
from batchscale.bench.documents import MeasuredData
from batchscale.bench.torchvision_files import lay_out, torchvision_name
from batchscale.build.inputs import load_data
from batchscale.data.folders.stored import StoredImages
from batchscale.data.source import Reading
from batchscale.minibatch import Minibatch
from batchscale.recipe import Recipe, recipe_from
from batchscale.recipe.schema import ON_DISK

_ENDLESS_EPOCHS = 1e6
_MINIBATCH_BYTES = 128 << 20  # at most, as floats; a loader holds two for each worker in shared memory


@dataclass(frozen=True)
class Prepared:
    """The assignment of every contender, and what the data are, for the document."""

    assignments: tuple[DataAssignment, ...]
    data: MeasuredData


@dataclass(frozen=True)
class Preparation:
    """What preparing needs beside the recipe.

    Args:
        threads: that decode, or loader workers, of each contender.
        scratch: the benchmark's own folder.
        notes: where it is told what had to change.
        check: called now and then; what it raises ends the preparation.
    """

    threads: int
    scratch: Path
    notes: list[str]
    check: Callable[[], None]

    def photographs(self, recipe: Recipe) -> Prepared:
        """Crops of the photographs that come with scikit-learn.

        Raises:
            UsageError: a recipe that does not fit them.
        """
        size = recipe.data.augment.size or Reading.size
        recipe = self._comparable(recipe, PHOTOGRAPHS, (3, size, size))
        written = write(photographs(), self.scratch, self.check)
        what = "crops of the two photographs that scikit-learn ships, 500 x 375, JPEG quality 90"
        return self._on_disk(recipe, written, (3, size, size), "photographs", what)

    def of_recipe(self, recipe: Recipe, data_folder: Path | None) -> Prepared:
        """The recipe's training images, a sample of them where they are on disk.

        Raises:
            UsageError: data that are missing or do not fit the recipe.
        """
        dataset = load_data(recipe, data_folder)
        images, shape, name = len(dataset.train), dataset.image_shape, recipe.data.name
        recipe = self._comparable(recipe, images, shape)
        if not isinstance(dataset.train, StoredImages):
            return self._in_memory(recipe, data_folder, images, shape)
        sample = Sample(dataset.train, least=recipe.minibatch.workers * recipe.minibatch.per_worker)
        written = write(iter(sample), self.scratch, self.check)
        if sample.unreadable:
            self.notes.append(f"{sample.unreadable} unreadable images are left out; batchscale data check names them")
        what = f"{'a sample' if written.images < images else 'all'} of {images:,} training images"
        return self._on_disk(recipe, written, shape, name, what)

    def _on_disk(self, recipe: Recipe, written: Photographs, shape: Sequence[int], name: str, what: str) -> Prepared:
        _check_fits(recipe, written.images)
        self.notes.append("the files lie in the file system's memory: decoding is measured, the disk is not")
        assignments = [
            self._assignment(recipe, c, written.folders.get(c, written.folders[FEED])) for c in ON_DISK_CONTENDERS
        ]
        return Prepared(tuple(assignments), _data(recipe, name, what, written.images, written.mean_bytes, shape))

    def _in_memory(self, recipe: Recipe, data_folder: Path | None, images: int, shape: Sequence[int]) -> Prepared:
        name, root = recipe.data.name, self.scratch / "torchvision"
        lay_out(name, data_folder, root)
        folder = data_folder.resolve() if data_folder else None
        assignments = [
            replace(
                self._assignment(recipe, c, folder), torchvision_name=torchvision_name(name), torchvision_root=str(root)
            )
            for c in IN_MEMORY
        ]
        data = _data(recipe, name, "all training images, in memory as bytes", images, math.prod(shape), shape)
        return Prepared(tuple(assignments), data)

    def _assignment(self, recipe: Recipe, contender: str, folder: Path | None) -> DataAssignment:
        content, where = recipe.model_dump(mode="json"), str(folder) if folder else None
        content["execution"]["decoders"] = "processes" if contender == PROCESSES else "threads"
        return DataAssignment(content, where, "", "", processes=1, threads=self.threads, contender=contender)

    def _comparable(self, recipe: Recipe, images: int, shape: Sequence[int]) -> Recipe:
        """The recipe as all contenders can feed it, with a note for what had to change.

        Raises:
            RecipeError: a minibatch larger than the training part.
        """
        _check_fits(recipe, images)
        changes = [
            f"epochs={_ENDLESS_EPOCHS}", f"execution.decode_threads={self.threads}", "execution.device=cpu",
            f"minibatch.workers={self._workers(recipe, shape)}", "minibatch.growth={kind: none}", "precision=fp32",
        ]  # fmt: skip
        if recipe.data.name in ON_DISK:  # what is sampled is what is trained on
            changes += ["data.name=folder", "data.subset=null", "data.labels=null"]
            changes += ["data.skip_bad=false", "data.holdout=0"]
        if recipe.minibatch.growth.kind != "none":
            self.notes.append("the minibatch does not grow: all make minibatches of its first size")
        if recipe.precision != "fp32":
            self.notes.append(f"precision={recipe.precision}: all make float32 minibatches")
        return recipe_from(recipe.model_dump(), changes)

    def _workers(self, recipe: Recipe, shape: Sequence[int]) -> int:
        """k, or as many workers as one machine's shared memory holds."""
        span, most = recipe.batch_norm.span, _MINIBATCH_BYTES // (4 * math.prod(shape) * recipe.minibatch.per_worker)
        workers = max(most // span, 1) * span
        if workers >= recipe.minibatch.workers:
            return recipe.minibatch.workers
        self.notes.append(
            f"a minibatch has {workers} of the recipe's {recipe.minibatch.workers} workers: "
            f"as many as {_MINIBATCH_BYTES >> 20} MB of floats hold"
        )
        return workers


def _check_fits(recipe: Recipe, images: int) -> None:
    Minibatch(recipe.minibatch.workers, recipe.minibatch.per_worker).check_fits(images)


def _data(recipe: Recipe, name: str, what: str, images: int, mean_bytes: int, shape: Sequence[int]) -> MeasuredData:
    return MeasuredData(
        name=name,
        what=what,
        images=images,
        mean_bytes=mean_bytes,
        image_shape=list(shape),
        augment=recipe.data.augment.model_dump(mode="json"),
    )
