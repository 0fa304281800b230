"""Images on disk, decoded by threads straight into the minibatch; nothing is kept in memory but the index.

Cost: see jpeg.py; the decoders hold no interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.augmentation import Augmentation, Indices, crop_draws, mirrored
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs
from batchscale.data.folders.entries import Entries
from batchscale.data.folders.jpeg import BadImage, View, render
from batchscale.data.folders.views import DRAWS, centre, scale_and_aspect
from batchscale.data.threads import compute_alone
from batchscale.errors import DataError

_STEPS_AHEAD = 3
_CHUNK_IMAGES = 4  # one task of a decoding thread

ViewOf = Callable[[int, int], View]


class StoredImages(Examples):
    """Images on disk.

    Args:
        entries: the files.
        size: height and width of what the network gets.
        skip_bad: in training take the next readable image in file order in the place of one that cannot be read; in
            evaluation leave it out.
        threads: that decode.
        selected: entries that belong to this part; None for all.
    """

    steps_ahead = _STEPS_AHEAD

    def __init__(
        self, entries: Entries, size: int, skip_bad: bool, threads: int, selected: Indices | None = None
    ) -> None:
        self.entries, self._size, self._skip_bad, self._threads = entries, size, skip_bad, threads
        self._selected = selected
        self.labels = torch.from_numpy(entries.labels if selected is None else entries.labels[selected])
        self.shape, self.raw = (3, size, size), True
        self._skipped: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(threads, "batchscale-decode", compute_alone)

    def select(self, images: Indices) -> StoredImages:
        """These images alone; their files are not touched."""
        entries = images if self._selected is None else self._selected[images]
        part = StoredImages(self.entries, self._size, self._skip_bad, self._threads, entries)
        part._skipped, part._pool = self._skipped, self._pool  # so that what any part passes over is told
        return part

    def digests(self) -> dict[str, str]:
        """Of the classes and labels, and of what the entries know of their files."""
        chosen = np.arange(len(self.entries)) if self._selected is None else self._selected
        classes = "\0".join(self.entries.classes).encode(errors="surrogateescape")
        return {"labels": digest([classes, self.entries.labels[chosen]]), **self.entries.digests(chosen)}

    def skipped(self) -> Mapping[str, str]:
        """Files passed over so far, and why."""
        return dict(sorted(self._skipped.copy().items()))  # decoding threads add to it

    def file(self, image: int) -> tuple[str, bytes]:
        """Name and bytes of an image's file.

        Raises:
            BadImage: it cannot be read.
        """
        return self.entries.name(self._entry(image)), self.entries.read(self._entry(image))

    def _entry(self, image: int) -> int:
        return image if self._selected is None else int(self._selected[image])

    def _render(self, image: int, view_of: ViewOf, flip: bool, out: torch.Tensor) -> bool:
        """Decode this image into out; False where it is passed over."""
        entry = self._entry(image)
        try:
            render(self.entries.read(entry), view_of, flip, out)
        except BadImage as error:
            if not self._skip_bad:
                raise DataError(
                    f"{self.entries.shown(entry)}: {error}: must be a readable image; repair or remove it "
                    f"(`batchscale data check` names all such files), or train with data.skip_bad=true"
                ) from None
            self._skipped[self.entries.shown(entry)] = str(error)
            return False
        return True

    def _render_or_next(self, image: int, view_of: ViewOf, flip: bool, out: torch.Tensor) -> int:
        """Decode this image, or the next readable one, into out; returns which."""
        for candidate in range(image, image + len(self)):
            if self._render(candidate % len(self), view_of, flip, out):
                return candidate % len(self)
        raise DataError(
            f"{self.entries.name(0)} and all after it: not one image can be read; see `batchscale data check`"
        )

    def _minibatch(
        self, images: Indices, views: list[ViewOf], flips: npt.NDArray[np.bool_], replace: bool = True
    ) -> Pairs:
        """These images; the next readable ones in the place of bad ones, or, without replace, the readable ones."""
        out = torch.empty((len(images), self._size, self._size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        rendered = images.copy()

        def work(first: int) -> None:
            for i in range(first, min(first + _CHUNK_IMAGES, len(images))):
                request = int(images[i]), views[i], bool(flips[i]), out[i : i + 1]
                if replace:
                    rendered[i] = self._render_or_next(*request)
                elif not self._render(*request):
                    rendered[i] = -1

        for _ in self._pool.map(work, range(0, len(images), _CHUNK_IMAGES)):
            pass
        readable = rendered >= 0
        return out if readable.all() else out[torch.from_numpy(readable)], self.labels[
            torch.from_numpy(rendered[readable])
        ]

    def _centres(self, part: slice, replace: bool) -> Pairs:
        images = np.arange(*part.indices(len(self)))
        views: list[ViewOf] = [partial(centre, size=self._size)] * len(images)
        return self._minibatch(images, views, np.zeros(len(images), dtype=bool), replace)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, part: slice) -> Pairs:
        """Consecutive images: the centre of each."""
        return self._centres(part, replace=True)

    def readable(self, part: slice) -> Pairs:
        """The centre of each that can be read."""
        return self._centres(part, replace=False)

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Crops and mirrors, each drawn for its image alone."""

        def minibatch(epochs: Indices, images: Indices) -> Pairs:
            if augmentation.scale_aspect:
                draws = crop_draws(seed, epochs, images, DRAWS)
                views: list[ViewOf] = [partial(scale_and_aspect, d, size=self._size) for d in draws]
            else:
                views = [partial(centre, size=self._size)] * len(images)
            flips = mirrored(seed, epochs, images) if augmentation.flip else np.zeros(len(images), dtype=bool)
            return self._minibatch(images, views, flips)

        return minibatch
