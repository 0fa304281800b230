"""What the files of images and masks say of themselves before they are decoded, and what of it will not do.

What two readings allow is refused: an image that its EXIF entry turns, a file of several pictures, a grey mask of 2 or
4 bits (a 1 of 4 bits is class 1, or the grey 17 of 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from batchscale.data.masks.pair_layouts import Pair, listed
from batchscale.data.readings import MasksAre
from batchscale.errors import DataError
from batchscale.words import counted

BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises of a file that is no picture."""

_GREY = ("1", "L", "LA", "La")
_MASKS = ("L", "P", "I", "I;16", "1")
_SCALED = ("L;2", "L;4")  # PIL multiplies these to fill 8 bits

Size = tuple[int, int]
"""Height and width."""


def checked_headers(name: str, pairs: Sequence[Pair], masks_are: MasksAre) -> tuple[list[Size], int]:
    """Sizes and channels, without decoding.

    Args:
        name: of the data set, for errors.
        pairs: of all parts.
        masks_are: what a mask's pixels are.

    Returns:
        (size of every image, channels of all: 3 where one has colours).

    Raises:
        DataError: no picture, one that can be read in several ways, or masks of another size than their images.
    """
    sizes, modes, odd = [], set(), []
    for pair in pairs:
        size, mode = _image_header(pair.image)
        mask_size = _mask_size(pair.mask, masks_are)
        if size != mask_size:
            odd.append(f"{pair.mask.name} ({_by(mask_size)}, image {_by(size)})")
        sizes.append(size)
        modes.add(mode)
    if odd:
        raise DataError(
            f"data.name={name}: {counted(len(odd), 'mask')} of another size than the image: {listed(odd)}: must be "
            f"the same; mend them"
        )
    return sizes, 1 if modes <= set(_GREY) else 3


def check_one_size(name: str, pairs: Sequence[Pair], sizes: Sequence[Size]) -> None:
    """Raise where images differ in size.

    Raises:
        DataError: which do.
    """
    odd = [pair.image.name for pair, size in zip(pairs, sizes, strict=True) if size != sizes[0]]
    if odd:
        raise DataError(
            f"data.name={name}: {listed(odd)}: of another size than {pairs[0].image.name} ({_by(sizes[0])}): train on "
            f"crops of one size with data.augment.size=N, or resize them"
        )


def _image_header(file: Path) -> tuple[Size, str]:
    """(size, mode)."""
    size, mode, stored = _header(file)
    if mode.startswith(("I", "F")) or ";16" in stored:
        raise DataError(
            f"{file}: has more than 8 bits a pixel ({stored or mode}): must have 8; scale it to 0..255 and save it so"
        )
    return size, mode


def _mask_size(file: Path, masks_are: MasksAre) -> Size:
    size, mode, stored = _header(file)
    if mode not in _MASKS:
        raise DataError(f"{file}: a mask must have one whole number a pixel, and is {mode}; save it so")
    if stored in _SCALED and masks_are == "classes":
        raise DataError(
            f"{file}: is grey with {stored[-1]} bits: whether these are classes or shades of 255 cannot be told; save "
            f"it with 8 bits, or as a palette picture"
        )
    return size


def _header(file: Path) -> tuple[Size, str, str]:
    """(size, mode, how its pixels are stored: "RGB;16B")."""
    try:
        with Image.open(file) as picture:
            size, mode, stored = (picture.height, picture.width), picture.mode, _stored(picture)
            pictures = getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1  # a photograph, its preview
            orientation = orientation_of(picture)
    except BROKEN as error:
        raise DataError(f"{file}: cannot be read as a picture ({error}); mend or remove it") from None
    if pictures > 1:
        raise DataError(f"{file}: holds {pictures} pictures: must hold one; save the one that is meant")
    if orientation != 1:
        raise DataError(
            f"{file}: is turned by its EXIF orientation {orientation}: whether its partner fits it as stored or turned "
            f"cannot be told; turn its pixels, or take the entry away"
        )
    return size, mode, stored


def _stored(picture: Image.Image) -> str:
    arguments = next((tile[3] for tile in getattr(picture, "tile", ())), "")
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def orientation_of(picture: Image.Image) -> int:
    """How its EXIF entry turns a picture: 1 not at all, 2 to 4 mirrored or upside down, 5 to 8 with sides exchanged."""
    # A PNG without the entry would be decoded whole to look for one at its end.
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1
    orientation: int = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation or 1


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
