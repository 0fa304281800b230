"""Where images and their masks lie on disk, and which part each pair is of.

| layout | images | masks | parts |
|---|---|---|---|
| a table | `images/NAME.*` | `masks/NAME.png` or `labels/` | `index.csv`: columns `id` (or `image_id`) and `split` |
| lists | `images/NAME.*` | `masks/NAME.png` or `labels/` | `train.txt` and `val.txt`: a name a line |
| folders | `train/images/NAME.*` | `train/masks/NAME.png` | `train/` and `val/`, or `test/` where that is not there |
| Pascal-VOC | `JPEGImages/NAME.*` | `SegmentationClass/NAME.png` | `ImageSets/Segmentation/train.txt`, `val.txt` |
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.errors import DataError
from batchscale.words import counted

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_MASKS = (".png",)
_MASK_FOLDERS = ("masks", "labels")
_ID_COLUMNS = ("id", "image_id")
_PARTS = {"train": "train", "val": "test", "test": "test"}
_MOST_NAMED = 10


@dataclass(frozen=True)
class Pair:
    """An image's file and its mask's."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class PairParts:
    """Pairs of either part in their order; ``passed_over``: what lies beside them, in words."""

    train: list[Pair]
    test: list[Pair]
    passed_over: str = ""


def listed(names: Sequence[str]) -> str:
    """Names for an error: ten of them, and how many more."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def layouts_below(folder: Path) -> list[str]:
    """What a folder holds that says which pair is of which part."""
    return [way for way, (is_there, _) in _LAYOUTS.items() if is_there(folder)]


def pairs_below(name: str, folder: Path) -> PairParts:
    """Every pair below a folder, in one of the layouts above.

    Args:
        name: of the data set, for errors.
        folder: that holds the layout's folders.

    Raises:
        DataError: no layout, or two of them; a part without a pair; names that stand twice, or have no partner (all of
            them, ten by name).
    """
    ways = layouts_below(folder)
    if not ways:
        raise DataError(
            f"data.name={name}: {folder} holds neither images/, a folder of masks and index.csv or train.txt and "
            f"val.txt, nor train/images and val/images, nor ImageSets/Segmentation: name the folder that does with "
            f"--data DIR"
        )
    if len(ways) > 1:
        raise DataError(
            f"data.name={name}: {folder} holds {' and '.join(ways)}: each says which images are trained on; leave one, "
            f"and move the others away"
        )
    parts = _LAYOUTS[ways[0]][1](name, folder)
    for part, pairs in (("training", parts.train), ("test", parts.test)):
        if not pairs:
            raise DataError(f"data.name={name}: {folder}: {ways[0]}: no image of the {part} part; name some")
    return parts


def _by_table(name: str, folder: Path) -> PairParts:
    table = folder / "index.csv"
    rows = list(csv.DictReader(_lines(name, table)))
    column = next((column for column in _ID_COLUMNS if rows and column in rows[0]), None)
    if column is None or "split" not in rows[0]:
        raise DataError(
            f"data.name={name}: {table}: must have rows, a column {' or '.join(_ID_COLUMNS)} and a column split; add "
            f"what is missing"
        )
    names: dict[str, list[str]] = {"train": [], "test": []}
    for row in rows:
        if row["split"] not in _PARTS:
            raise DataError(
                f"data.name={name}: {table}: split {row['split']!r} of {row[column]}: must be train, val or test; "
                f"mend it"
            )
        names[_PARTS[row["split"]]].append(row[column])
    return _named_pairs(name, table, folder / "images", _masks_beside(name, folder), names)


def _by_lists(name: str, folder: Path) -> PairParts:
    return _named_pairs(name, folder, folder / "images", _masks_beside(name, folder), _listed_names(name, folder))


def _by_voc(name: str, folder: Path) -> PairParts:
    lists = folder / "ImageSets" / "Segmentation"
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    return _named_pairs(name, lists, images, masks, _listed_names(name, lists))


def _by_folders(name: str, folder: Path) -> PairParts:
    tests = [part for part in ("val", "test") if (folder / part / "images").is_dir()]
    if not tests:
        raise DataError(f"data.name={name}: {folder}: train/images, but neither val/images nor test/images; add one")
    passed = f"{folder / 'test'}, as val/ is evaluated on" if len(tests) > 1 else ""
    return PairParts(_of_folder(name, folder / "train"), _of_folder(name, folder / tests[0]), passed)


_Reader = Callable[[str, Path], PairParts]
_LAYOUTS: dict[str, tuple[Callable[[Path], bool], _Reader]] = {
    "index.csv": (lambda folder: (folder / "index.csv").is_file(), _by_table),
    "train.txt or val.txt": (
        lambda folder: any((folder / f"{part}.txt").is_file() for part in ("train", "val")),
        _by_lists,
    ),
    "train/images": (lambda folder: (folder / "train" / "images").is_dir(), _by_folders),
    "ImageSets/Segmentation": (lambda folder: (folder / "ImageSets" / "Segmentation").is_dir(), _by_voc),
}


def _lines(name: str, file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets put a mark before the first byte
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.name={name}: {file}: cannot be read as text ({error}); mend it") from None


def _listed_names(name: str, folder: Path) -> dict[str, list[str]]:
    lists = {"train": folder / "train.txt", "test": folder / "val.txt"}
    return {
        part: [line.strip() for line in _lines(name, file) if line.strip()] for part, file in lists.items()
    }  # fmt: skip


def _named_pairs(name: str, source: Path, images: Path, masks: Path, names: Mapping[str, Sequence[str]]) -> PairParts:
    """Pairs by their names; what else lies in the folders is of no part."""
    every = [*names["train"], *names["test"]]
    if len(set(every)) < len(every):
        twice = sorted({each for each in every if every.count(each) > 1})
        raise DataError(
            f"data.name={name}: {source} names {listed(twice)} more than once: an image is of one part, and once; "
            f"leave one"
        )
    pictures, truths = _by_stem(name, images, _IMAGES), _by_stem(name, masks, _MASKS)
    for folder, files in ((images, pictures), (masks, truths)):
        if missing := [each for each in every if each not in files]:
            raise DataError(
                f"data.name={name}: {source} names {counted(len(missing), 'image')} that {folder} does not hold: "
                f"{listed(missing)}; add them, or leave the names out (names are without .png or .jpg)"
            )
    pairs = {part: [Pair(pictures[each], truths[each]) for each in some] for part, some in names.items()}
    unnamed = len(pictures.keys() & truths.keys() - set(every))
    passed = f"{counted(unnamed, 'pair')} that {source} does not name" if unnamed else ""
    return PairParts(pairs["train"], pairs["test"], passed)


def _of_folder(name: str, folder: Path) -> list[Pair]:
    """Every pair of a folder that holds one part, in the order of the names."""
    images = _by_stem(name, folder / "images", _IMAGES)
    masks = _by_stem(name, _masks_beside(name, folder), _MASKS)
    for kind, alone in (("no mask", images.keys() - masks.keys()), ("no image", masks.keys() - images.keys())):
        if alone:
            raise DataError(
                f"data.name={name}: {folder}: {counted(len(alone), 'file')} with {kind}: {listed(sorted(alone))}; "
                f"add the partners, or take these away"
            )
    return [Pair(images[stem], masks[stem]) for stem in images]


def _masks_beside(name: str, folder: Path) -> Path:
    folders = [folder / masks for masks in _MASK_FOLDERS if (folder / masks).is_dir()]
    if len(folders) != 1:
        many = "both masks/ and labels/" if folders else f"no {' or '.join(_MASK_FOLDERS)}/"
        raise DataError(f"data.name={name}: {folder} holds images/ and {many}; give it one folder of masks")
    return folders[0]


def _by_stem(name: str, folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Name without suffix -> file, in the order of the names."""
    if not folder.is_dir():
        raise DataError(f"data.name={name}: {folder}: no such folder; name the one that holds it with --data DIR")
    files: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes):
        if file.stem in files:
            raise DataError(
                f"data.name={name}: {folder}: {files[file.stem].name} and {file.name} have one name, so which belongs "
                f"to {file.stem}.png cannot be told; take one away"
            )
        files[file.stem] = file
    return files
