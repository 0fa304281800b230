"""Images on disk, decoded by threads or processes into the minibatch; nothing is kept in memory but the index.

The pixels are the same, bit for bit: both run jpeg.py on one core. Cost: see there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.augmentation import Augmentation, Indices, crop_draws, mirrored
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs
from batchscale.data.folders.decoders import DecodingProcesses
from batchscale.data.folders.decoding import MOST_IMAGES
from batchscale.data.folders.entries import Entries
from batchscale.data.folders.jpeg import BadImage, render
from batchscale.data.folders.views import DRAWS, ViewOf, centre, scale_and_aspect
from batchscale.data.threads import compute_alone
from batchscale.errors import DataError

_STEPS_AHEAD = 3
_CHUNK_IMAGES = 4  # one task of a decoding thread


class StoredImages(Examples):
    """Images on disk.

    Args:
        entries: the files.
        size: height and width of what the network gets.
        skip_bad: in training take the next readable image in file order in the place of one that cannot be read; in
            evaluation leave it out.
        threads: that decode.
        selected: entries that belong to this part; None for all.
        processes: that decode what is trained and evaluated on, one for each thread; None where threads do.
    """

    steps_ahead = _STEPS_AHEAD

    def __init__(
        self,
        entries: Entries,
        size: int,
        skip_bad: bool,
        threads: int,
        selected: Indices | None = None,
        processes: DecodingProcesses | None = None,
    ) -> None:
        self.entries, self._size, self._skip_bad, self._threads = entries, size, skip_bad, threads
        self._selected, self._processes = selected, processes
        self.labels = torch.from_numpy(entries.labels if selected is None else entries.labels[selected])
        self.shape, self.raw = (3, size, size), True
        self._skipped: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(threads, "batchscale-decode", compute_alone)

    def select(self, images: Indices) -> StoredImages:
        """These images alone; their files are not touched."""
        entries = images if self._selected is None else self._selected[images]
        part = StoredImages(self.entries, self._size, self._skip_bad, self._threads, entries, self._processes)
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
        self,
        images: Indices,
        views: list[ViewOf],
        flips: npt.NDArray[np.bool_],
        replace: bool = True,
        processes: DecodingProcesses | None = None,
    ) -> Pairs:
        """These images; the next readable ones in the place of bad ones, or, without replace, the readable ones."""
        out = torch.empty((len(images), self._size, self._size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        rendered = images.copy()
        at_once = _CHUNK_IMAGES
        if processes is not None:
            at_once = min(max(-(-len(images) // (2 * processes.processes)), 1), MOST_IMAGES)

        def work(first: int) -> None:
            numbers = range(first, min(first + at_once, len(images)))
            rest: Sequence[int] = range(len(numbers))
            if processes is not None:
                requests = [(self._entry(int(images[i])), views[i], bool(flips[i])) for i in numbers]
                rest = processes.decode(self.entries, requests, out[numbers.start : numbers.stop])
            for i in (numbers[place] for place in rest):  # also what no process could: here it is told, or passed over
                request = int(images[i]), views[i], bool(flips[i]), out[i : i + 1]
                if replace:
                    rendered[i] = self._render_or_next(*request)
                elif not self._render(*request):
                    rendered[i] = -1

        for _ in self._pool.map(work, range(0, len(images), at_once)):
            pass
        readable = rendered >= 0
        return out if readable.all() else out[torch.from_numpy(readable)], self.labels[
            torch.from_numpy(rendered[readable])
        ]

    def _centres(self, part: slice, replace: bool, processes: DecodingProcesses | None = None) -> Pairs:
        images = np.arange(*part.indices(len(self)))
        views: list[ViewOf] = [partial(centre, size=self._size)] * len(images)
        return self._minibatch(images, views, np.zeros(len(images), dtype=bool), replace, processes)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, part: slice) -> Pairs:
        """Consecutive images: the centre of each."""
        return self._centres(part, replace=True)

    def readable(self, part: slice) -> Pairs:
        """The centre of each that can be read."""
        few = (
            len(range(*part.indices(len(self)))) <= MOST_IMAGES
        )  # such as the one of a trial: no process starts for it
        return self._centres(part, replace=False, processes=None if few else self._processes)

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Crops and mirrors, each drawn for its image alone."""

        def minibatch(epochs: Indices, images: Indices) -> Pairs:
            views, flips = self.drawn(seed, augmentation, epochs, images)
            return self._minibatch(images, views, flips, processes=self._processes)

        return minibatch

    def drawn(
        self, seed: int, augmentation: Augmentation, epochs: Indices, images: Indices
    ) -> tuple[list[ViewOf], npt.NDArray[np.bool_]]:
        """The view of each image, and whether it is mirrored."""
        views: list[ViewOf] = [partial(centre, size=self._size)] * len(images)
        if augmentation.scale_aspect:
            draws = crop_draws(seed, epochs, images, DRAWS)
            views = [partial(scale_and_aspect, d, size=self._size) for d in draws]
        return views, mirrored(seed, epochs, images) if augmentation.flip else np.zeros(len(images), dtype=bool)

    def files(self, images: Indices) -> list[bytes]:
        """The bytes of these images' files, read by the threads that decode; b"" of those that cannot be read."""
        return list(self._pool.map(self._bytes, images.tolist()))

    def _bytes(self, image: int) -> bytes:
        try:
            return self.file(image)[1]
        except BadImage:
            return b""
