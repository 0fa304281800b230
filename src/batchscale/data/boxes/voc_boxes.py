"""Pascal-VOC's layout: Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/PART.txt with a name a line.

The numbers of a box are its corners as they stand. (VOC itself counts pixels from 1 and means the last one; most sets
in this layout do not, and the XML does not tell.) A difficult object is as a crowd: neither learned nor an error.

Source: Everingham et al. 2010, and its development kit, section 2.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from batchscale.data.boxes.box_checks import AnnotatedBox, BoxChecks, tensors_of
from batchscale.data.boxes.boxes import Photograph, listed, read_picture
from batchscale.errors import DataError
from batchscale.words import counted

_IMAGES = (".jpg", ".jpeg", ".png")

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Of Pascal VOC, labels 1 to 20."""


def read_voc(folder: Path, part: str, classes: Sequence[str]) -> tuple[list[Photograph], str]:
    """The photographs of one part.

    Args:
        folder: that holds Annotations, JPEGImages and ImageSets.
        part: "train", "val", "trainval" or "test".
        classes: their names; labels count from 1.

    Returns:
        (photographs in the order of their names, what was passed over in words).

    Raises:
        DataError: a file missing, broken, a class that is not in the list, a box outside of its image.
    """
    names = _names(folder, part)
    images = {name: _image(folder, name) for name in names}
    tables = {name: folder / "Annotations" / f"{name}.xml" for name in names}
    for kind, missing in (
        ("image in JPEGImages", [name for name, file in images.items() if file is None]),
        ("annotation in Annotations", [name for name, file in tables.items() if not file.is_file()]),
    ):
        if missing:
            raise DataError(
                f"{folder}: {counted(len(missing), 'name')} of ImageSets/Main/{part}.txt without {kind}: "
                f"{listed(missing)}; add the files, or take the names away"
            )
    checks, numbers = BoxChecks(f"{folder / 'Annotations'}"), {name: number for number, name in enumerate(classes, 1)}
    photographs = []
    for name, file in images.items():
        assert file is not None
        size, objects = _read(tables[name], numbers)
        boxes = checks.kept(name, size, objects)
        photographs.append(Photograph(name, size, *tensors_of(boxes), partial(read_picture, file, size)))
    checks.finish()
    return photographs, str(checks.passed)


def _names(folder: Path, part: str) -> list[str]:
    table = folder / "ImageSets" / "Main" / f"{part}.txt"
    try:
        names = table.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as a list of names ({error}); add it") from None
    if not names:
        raise DataError(f"{table}: names no image; give it a name a line")
    return sorted(set(names))


def _image(folder: Path, name: str) -> Path | None:
    files = (folder / "JPEGImages" / f"{name}{suffix}" for suffix in _IMAGES)
    return next((file for file in files if file.is_file()), None)


def _read(table: Path, numbers: Mapping[str, int]) -> tuple[tuple[int, int], list[AnnotatedBox]]:
    """(H, W) and the objects of one XML."""
    try:
        root = ElementTree.parse(table).getroot()
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:  # of an encoding: the two in between
        raise DataError(f"{table}: cannot be read as XML ({error}); mend or remove it") from None
    try:
        height, width = (int(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
        boxes = [
            (
                each.findtext("name", "").strip(),
                [float(each.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")],
                each.findtext("difficult", "0").strip() == "1",
            )
            for each in root.iter("object")
        ]
        if min(height, width) < 1 or not all(math.isfinite(side) for _, box, _ in boxes for side in box):
            raise ValueError
    except ValueError:
        raise DataError(
            f"{table}: must have a size of at least 1 x 1 and, of every object, a name and a bndbox of four numbers; "
            f"mend it"
        ) from None
    unknown = sorted({name for name, _, _ in boxes if name not in numbers})
    if unknown:
        raise DataError(f"{table}: class {listed(unknown)}: must be one of {', '.join(numbers)}; mend the XML")
    return (height, width), [
        AnnotatedBox((x1, y1, x2, y2), numbers[name], difficult) for name, (x1, y1, x2, y2), difficult in boxes
    ]
