"""Images on disk that every contender reads: class folders, and their packed form, in the benchmark's own folder.

Either crops of the two photographs that come with scikit-learn, so that nothing need be fetched, or a sample from all
over the user's training part, so small that it stays in the memory of the file system: the disk is not measured, and no
contender warms it for another.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batchscale.bench.data.contenders import FEED, PACKED
from batchscale.data.folders.folder_source import FolderSource
from batchscale.data.folders.jpeg import BadImage, decode_whole
from batchscale.data.folders.prepare_folders import prepare_folders
from batchscale.data.folders.stored import StoredImages
from batchscale.data.sources import DATASETS
from batchscale.errors import DataError
from batchscale.randomness import key, shuffled, uniform
from batchscale.system.disk import lay

PHOTOGRAPHS = 256
_HEIGHT, _WIDTH, _QUALITY = 375, 500, 90  # ImageNet's most usual size
_SMALLEST_CROP = 0.6  # of a photograph's height

_SAMPLE_IMAGES, _SAMPLE_BYTES = 1024, 256 << 20  # whichever is reached first, but a minibatch at least
_SAMPLE, _CROP = 401, 402  # streams: which images; where a photograph is cut

_File = tuple[str, str, bytes]
"""Class folder, extension, content."""


@dataclass(frozen=True)
class Photographs:
    """The images that every contender reads, as they lie on disk.

    Args:
        folders: contender -> its data folder; class folders for all but the packed form's.
        images, mean_bytes: of the training part.
        unreadable: files passed over.
    """

    folders: dict[str, Path]
    images: int
    mean_bytes: int
    unreadable: int = 0


def photographs() -> Iterator[_File]:
    """Crops of scikit-learn's two photographs, each another one, 500 x 375."""
    from sklearn.datasets import load_sample_images

    images = load_sample_images()
    names = [Path(name).stem for name in images.filenames]
    draws = uniform(key(_CROP), np.arange(3 * PHOTOGRAPHS)).reshape(PHOTOGRAPHS, 3)
    for number, (size, down, right) in enumerate(draws):
        whole = Image.fromarray(images.images[number % len(names)])
        height = whole.height * (_SMALLEST_CROP + (1 - _SMALLEST_CROP) * size)
        width = height * _WIDTH / _HEIGHT
        left, top = right * (whole.width - width), down * (whole.height - height)
        crop = whole.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        stream = io.BytesIO()
        crop.save(stream, "JPEG", quality=_QUALITY)
        yield names[number % len(names)], ".jpg", stream.getvalue()


class Sample:
    """Images of a training part, drawn without regard to classes or order.

    Args:
        train: of the data set.
        least: images, whatever their bytes.

    Attributes:
        unreadable: files passed over so far.
    """

    def __init__(self, train: StoredImages, least: int) -> None:
        self._train, self._least, self.unreadable = train, least, 0

    def __iter__(self) -> Iterator[_File]:
        images, taken_bytes = len(self._train), 0
        order = shuffled(key(_SAMPLE), np.arange(min(max(_SAMPLE_IMAGES, self._least), images)), images)
        for number, image in enumerate(order):
            if number >= self._least and taken_bytes > _SAMPLE_BYTES:
                return
            try:
                name, content = self._train.file(int(image))
                decode_whole(content)
            except BadImage:
                self.unreadable += 1
                continue
            taken_bytes += len(content)
            yield f"{int(self._train.labels[image]):05d}", Path(name).suffix, content


def write(files: Iterator[_File], into: Path, check: Callable[[], None]) -> Photographs:
    """Write class folders and their packed form.

    Args:
        files: of the training part.
        into: the benchmark's own folder.
        check: called for every image; what it raises ends the writing.

    Raises:
        DataError: there is no room.
    """
    root, packed, lengths = into / "images", into / "packed", []
    try:
        for number, (name, extension, content) in enumerate(files):
            check()
            path = root / "train" / name / f"{number:06d}{extension}"
            validation = root / "val" / name / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            lengths.append(len(content))
            if not validation.parent.exists():  # a data set has one; no contender reads it
                validation.parent.mkdir(parents=True)
                lay(path, validation, "hard")
    except OSError as error:
        raise DataError(
            f"{into}: the sample cannot be written ({error.strerror or error}): needs "
            f"{2 * _SAMPLE_BYTES >> 20} MB of room at most; name a folder that has it by setting TMPDIR"
        ) from None
    if not lengths:
        raise DataError("data: not one image of the sample can be read; see `batchscale data check`")
    source: Any = DATASETS["folder"]
    assert isinstance(source, FolderSource)
    prepare_folders(source, root, packed, None, skip_bad=False)
    return Photographs({FEED: root, PACKED: packed}, len(lengths), sum(lengths) // len(lengths))
