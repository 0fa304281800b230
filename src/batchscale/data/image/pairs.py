"""Images and their masks on disk, as pairs of one size: read once, kept in memory.

| layout | images | masks | parts |
|---|---|---|---|
| a table | `images/NAME.*` | `labels/NAME.png` or `masks/NAME.png` | `index.csv`, see below |
| folders | `train/images/NAME.*` | `train/masks/NAME.png` | `train/` and `val/` or `test/` |

`index.csv` has a column `id` or `image_id`, and a column `split`: train, val or test.

A mask is a grey or palette picture whose pixels are classes, 255 for none; or instances, 0 for the background: then
every pixel above 0 is class 1.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from batchscale.data.examples import IGNORED, Splits, TensorExamples
from batchscale.data.readings import MasksAre
from batchscale.errors import DataError
from batchscale.words import counted

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_MASK_FOLDERS = ("masks", "labels")
_ID_COLUMNS = ("id", "image_id")
_MOST_NAMED = 10


@dataclass(frozen=True)
class Pair:
    """An image's file and its mask's."""

    image: Path
    mask: Path


def read_pairs(name: str, folder: Path, masks_are: MasksAre, num_classes: int) -> Splits:
    """Images and masks below a folder, in one of the layouts above.

    Args:
        name: of the data set, for errors.
        folder: that holds ``images`` and a table, or ``train``.
        masks_are: what a mask's pixels are.
        num_classes: C; with instances 2.

    Raises:
        DataError: neither layout; a missing partner (all of them, ten by name), another size, a value beyond C.
    """
    train, test = _parts(name, folder)
    splits = []
    for part in (train, test):
        images = _stacked(name, [pair.image for pair in part], _pixels)
        masks = _stacked(name, [pair.mask for pair in part], _mask)
        if images.shape[-2:] != masks.shape[-2:]:
            _raise_for_sizes(name, part)
        if masks_are == "instances":
            masks = (masks > 0).to(torch.uint8)
        _check_values(name, part, masks, num_classes)
        splits.append(TensorExamples(images, masks.long() if masks.dtype != torch.uint8 else masks))
    return Splits(name, splits[0], splits[1], num_classes)


def _parts(name: str, folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Pairs of the training and of the test part, each in the order of the names."""
    if (folder / "index.csv").is_file():
        return _by_table(name, folder)
    for test in ("val", "test"):
        if (folder / "train" / "images").is_dir() and (folder / test / "images").is_dir():
            return _of_folder(name, folder / "train"), _of_folder(name, folder / test)
    raise DataError(
        f"data.name={name}: {folder} holds neither images/, a folder of masks and index.csv, nor train/images and "
        f"val/images: name the folder that does with --data DIR"
    )


def _by_table(name: str, folder: Path) -> tuple[list[Pair], list[Pair]]:
    table = folder / "index.csv"
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    column = next((column for column in _ID_COLUMNS if rows and column in rows[0]), None)
    if column is None or "split" not in rows[0]:
        raise DataError(
            f"data.name={name}: {table}: must have rows, a column {' or '.join(_ID_COLUMNS)} and a column split"
        )
    pairs = {pair.image.stem: pair for pair in _of_folder(name, folder)}
    missing = [row[column] for row in rows if row[column] not in pairs]
    if missing:
        raise DataError(f"data.name={name}: {table} names {_listed(missing)}, of which images/ holds no image")
    parts: dict[str, list[Pair]] = {"train": [], "test": []}
    for row in rows:
        if row["split"] not in ("train", "val", "test"):
            raise DataError(f"data.name={name}: {table}: split {row['split']!r}: must be train, val or test")
        parts["train" if row["split"] == "train" else "test"].append(pairs[row[column]])
    for part, members in parts.items():
        if not members:
            raise DataError(f"data.name={name}: {table}: no row of the {part} part; give some a split of that name")
    return parts["train"], parts["test"]


def _of_folder(name: str, folder: Path) -> list[Pair]:
    images = {file.stem: file for file in sorted((folder / "images").iterdir()) if file.suffix.lower() in _IMAGES}
    where = next((folder / masks for masks in _MASK_FOLDERS if (folder / masks).is_dir()), None)
    if where is None:
        raise DataError(f"data.name={name}: {folder} holds images/, but no {' or '.join(_MASK_FOLDERS)}/")
    masks = {file.stem: file for file in where.iterdir() if file.suffix.lower() == ".png"}
    for kind, alone in (("no mask", images.keys() - masks.keys()), ("no image", masks.keys() - images.keys())):
        if alone:
            raise DataError(
                f"data.name={name}: {folder}: {counted(len(alone), 'file')} with {kind}: {_listed(sorted(alone))}; "
                f"add the partners, or take these away"
            )
    if not images:
        raise DataError(f"data.name={name}: {folder / 'images'} holds no image")
    return [Pair(images[stem], masks[stem]) for stem in images]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _stacked(name: str, files: Sequence[Path], read: Callable[[Path], torch.Tensor]) -> torch.Tensor:
    pictures = [read(file) for file in files]
    odd = [file.name for file, picture in zip(files, pictures, strict=True) if picture.shape != pictures[0].shape]
    if odd:
        raise DataError(
            f"data.name={name}: {_listed(odd)}: of another size or number of channels than {files[0].name} "
            f"{tuple(pictures[0].shape)}: must all be alike; crop or resize them"
        )
    return torch.stack(pictures)


def _opened(file: Path) -> Image.Image:
    try:
        picture = Image.open(file)
        picture.load()
    except OSError as error:
        raise DataError(f"{file}: cannot be read as a picture ({error}); mend or remove it") from None
    return picture


def _pixels(file: Path) -> torch.Tensor:
    """uint8 (C, H, W), grey or RGB."""
    picture = _opened(file)
    array = np.array(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _mask(file: Path) -> torch.Tensor:
    """(H, W): uint8, or int64 of a picture of 16 or 32 bits."""
    picture = _opened(file)
    if picture.mode not in ("L", "P", "I", "I;16", "1"):
        raise DataError(f"{file}: a mask must have one whole number a pixel, and is {picture.mode}; save it so")
    array = np.array(picture)
    return torch.from_numpy(array.astype(np.uint8 if picture.mode in ("L", "P", "1") else np.int64))


def _raise_for_sizes(name: str, part: Sequence[Pair]) -> None:
    pair = part[0]
    raise DataError(
        f"data.name={name}: {pair.mask.name}: its mask has another size than the image {pair.image.name}: must be the "
        f"same; mend the mask"
    )


def _check_values(name: str, part: Sequence[Pair], masks: torch.Tensor, num_classes: int) -> None:
    beyond = ((masks >= num_classes) & (masks != IGNORED)) | (masks < 0)
    bad = beyond.flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        values = sorted(set(masks[bad[0]][beyond[bad[0]]].tolist()))
        raise DataError(
            f"data.name={name}: {counted(len(bad), 'mask')} with values outside the {num_classes} classes, such as "
            f"{part[bad[0]].mask.name} with {', '.join(map(str, values[:5]))}: must be 0 to {num_classes - 1}, or "
            f"{IGNORED} for none; mend the masks, or give data.classes=N"
        )
