"""COCO's json: images, annotations and categories in one file, the images in a folder beside it.

Labels are the category ids as they stand (so COCO's own has 91 outputs with the background, as torchvision's weights).
Images are in the order of their ids. A crowd is kept as one, a region that is neither learned nor an error.

Source: cocodataset.org, "Data format"; Lin et al. 2014.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscale.data.image.box_checks import AnnotatedBox, BoxChecks, tensors_of
from batchscale.data.image.boxes import Photograph, listed, read_picture
from batchscale.errors import DataError
from batchscale.words import counted

_MOST_CLASSES = 10_000  # of ids as they stand: one output each


def read_coco(table: Path, folder: Path, with_masks: bool) -> tuple[list[Photograph], int, str]:
    """The photographs of one json.

    Args:
        table: the json.
        folder: of its images.
        with_masks: read the segmentations, too; needs pycocotools.

    Returns:
        (photographs, number of classes with the background, what was passed over in words).

    Raises:
        DataError: no such json; ids that lead nowhere; no image; a file missing; a box outside of its image.
    """
    content = _content(table)
    classes = _classes(table, content["categories"])
    images = {image["id"]: image for image in content["images"]}
    _check_ids(table, content, images)
    missing = [image["file_name"] for image in images.values() if not (folder / image["file_name"]).is_file()]
    if missing:
        raise DataError(
            f"{table}: {counted(len(missing), 'image')} missing in {folder}: {listed(missing)}; add them, or name the "
            f"folder that holds them with --data DIR"
        )
    of_image: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in images}
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    checks = BoxChecks(str(table))
    photographs = []
    for number in sorted(images):
        image = images[number]
        size = int(image["height"]), int(image["width"])
        boxes = checks.kept(image["file_name"], size, [_box(table, each) for each in of_image[number]])
        masks = partial(_masks, table, [box.segmentation for box in boxes], size) if with_masks else None
        photographs.append(
            Photograph(
                image["file_name"], size, *tensors_of(boxes), partial(read_picture, folder / image["file_name"]), masks
            )
        )
    checks.finish()
    return photographs, classes, str(checks.passed)


def _content(table: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: cannot be read as json ({error}); give COCO's instances json") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise DataError(f"{table}: must hold lists {', '.join(parts)}, as COCO's instances json does; give such a file")
    if not content["images"]:
        raise DataError(f"{table}: its list of images is empty; give a json with images")
    fields = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id",),
    }
    for part, names in fields.items():
        lacking = [row for row in content[part] if not isinstance(row, dict) or not all(name in row for name in names)]
        if lacking:
            raise DataError(
                f"{table}: {len(lacking)} of {part} without {', '.join(names)}: each must have them; mend the json"
            )
    return content


def _classes(table: Path, categories: Sequence[Mapping[str, Any]]) -> int:
    ids = [category["id"] for category in categories]
    odd = [str(number) for number in ids if not isinstance(number, int) or not 1 <= number < _MOST_CLASSES]
    if odd or not ids:
        raise DataError(
            f"{table}: category ids {listed(odd) or '(none)'}: must be whole numbers from 1 (0 is the background) to "
            f"{_MOST_CLASSES - 1}; number them anew"
        )
    return int(max(ids)) + 1


def _check_ids(table: Path, content: Mapping[str, Any], images: Mapping[Any, Any]) -> None:
    """Raise for annotations that belong to no image or no category."""
    categories = {category["id"] for category in content["categories"]}
    for field, known, noun in (("image_id", images, "image"), ("category_id", categories, "category")):
        dangling = [each for each in content["annotations"] if each[field] not in known]
        if dangling:
            names = [f"{each.get('id', '?')} ({field} {each[field]})" for each in dangling]
            raise DataError(
                f"{table}: {counted(len(dangling), 'annotation')} of no {noun} of the file: {listed(names)}; add the "
                f"{noun}, or take them away"
            )


def _box(table: Path, annotation: Mapping[str, Any]) -> AnnotatedBox:
    corner = annotation["bbox"]
    if not isinstance(corner, list) or len(corner) != 4 or not all(isinstance(side, (int, float)) for side in corner):
        raise DataError(
            f"{table}: annotation {annotation.get('id', '?')}: bbox {corner!r}: must be four numbers, x, y, width, "
            f"height; mend it"
        )
    x, y, width, height = corner
    corners = float(x), float(y), float(x) + float(width), float(y) + float(height)
    crowd = bool(annotation.get("iscrowd", 0))
    return AnnotatedBox(corners, annotation["category_id"], crowd, annotation.get("segmentation"))


def _masks(table: Path, segmentations: Sequence[Any], size: tuple[int, int]) -> torch.Tensor:
    """uint8 (b, H, W) of polygons, or of run lengths (compressed or not)."""
    from pycocotools import mask

    masks = np.zeros((len(segmentations), *size), dtype=np.uint8)
    for number, segmentation in enumerate(segmentations):
        if not segmentation:
            raise DataError(f"{table}: an annotation without segmentation; leave data.masks out, or add it")
        if isinstance(segmentation, list):
            runs = mask.merge(mask.frPyObjects(segmentation, *size))
        else:
            runs = mask.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation
        masks[number] = mask.decode(runs)
    return torch.from_numpy(masks)
