"""COCO's json: images, annotations and categories in one file, the images in a folder beside it.

Labels are the category ids as they stand (so COCO's own has 91 outputs with the background, as torchvision's weights).
Images are in the order of their ids. A crowd is kept as one, a region that is neither learned nor an error.

Source: cocodataset.org, "Data format"; Lin et al. 2014.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscale.data.boxes.box_checks import AnnotatedBox, BoxChecks, tensors_of
from batchscale.data.boxes.boxes import Photograph, listed, read_picture
from batchscale.errors import DataError, one_line
from batchscale.words import counted

_MOST_CLASSES = 10_000  # of ids as they stand: one output each
_MOST_PIXELS = 1e9  # of a side: more is no picture


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
        named = f"{table}: {image['file_name']}"
        masks = partial(_masks, named, [box.segmentation for box in boxes], size) if with_masks else None
        photographs.append(
            Photograph(
                image["file_name"],
                size,
                *tensors_of(boxes),
                partial(read_picture, folder / image["file_name"], size),
                masks,
            )
        )
    checks.finish()
    return photographs, classes, str(checks.passed)


def _content(table: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{table}: cannot be read as json ({error}); give COCO's instances json") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise DataError(f"{table}: must hold lists {', '.join(parts)}, as COCO's instances json does; give such a file")
    if not content["images"]:
        raise DataError(f"{table}: its list of images is empty; give a json with images")
    for part, fields in _FIELDS.items():
        lacking = [row for row in content[part] if not isinstance(row, dict) or not all(name in row for name in fields)]
        if lacking:
            raise DataError(
                f"{table}: {len(lacking)} of {part} without {', '.join(fields)}: each must have them; mend the json"
            )
        for row, (name, (fits, rule)) in itertools.product(content[part], fields.items()):
            if not fits(row[name]):
                raise DataError(
                    f"{table}: {_SINGLE[part]} {row.get('id', '?')}: {name} {row[name]!r}: must be {rule}; mend it"
                )
    _check_image_ids(table, [image["id"] for image in content["images"]])
    return content


def _check_image_ids(table: Path, ids: Sequence[Any]) -> None:
    """Raise for ids that two images share, or that have no order."""
    twice = sorted({str(number) for number, times in Counter(ids).items() if times > 1})
    if twice:
        raise DataError(f"{table}: several images have one id, {listed(twice)}: each must have its own; mend the json")
    if len({isinstance(number, str) for number in ids}) > 1:
        raise DataError(f"{table}: some ids of images are numbers and some are texts: must be of one kind; mend them")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, str)


def _is_side(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_box(value: Any) -> bool:
    # Compared, not converted: a whole number of json may be beyond all floats. NaN is in no order.
    return isinstance(value, list) and len(value) == 4 and all(
        isinstance(side, (int, float)) and -_MOST_PIXELS < side < _MOST_PIXELS for side in value
    )  # fmt: skip


_SINGLE = {"images": "image", "annotations": "annotation", "categories": "category"}
_FIELDS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {
        "id": (_is_id, "a whole number or a text"),
        "file_name": (lambda value: isinstance(value, str) and value != "", "a text"),
        "height": (_is_side, "a whole number of at least 1"),
        "width": (_is_side, "a whole number of at least 1"),
    },
    "annotations": {
        "image_id": (_is_id, "the id of an image"),
        "category_id": (_is_whole, "the id of a category"),
        "bbox": (_is_box, "four numbers x, y, width, height"),
    },
    "categories": {"id": (_is_whole, "a whole number")},
}


def _classes(table: Path, categories: Sequence[Mapping[str, Any]]) -> int:
    ids = [category["id"] for category in categories]
    odd = [str(number) for number in ids if not 1 <= number < _MOST_CLASSES]
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
    x, y, width, height = map(float, annotation["bbox"])
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(
            f"{table}: annotation {annotation.get('id', '?')}: iscrowd is {crowd!r}: must be 0 or 1; mend it"
        )
    corners = x, y, x + width, y + height
    return AnnotatedBox(corners, annotation["category_id"], bool(crowd), annotation.get("segmentation"))


def _masks(named: str, segmentations: Sequence[Any], size: tuple[int, int]) -> torch.Tensor:
    """uint8 (b, H, W) of polygons, or of run lengths (compressed or not)."""
    masks = np.zeros((len(segmentations), *size), dtype=np.uint8)
    for number, segmentation in enumerate(segmentations):
        if not segmentation:
            raise DataError(f"{named}: an annotation without segmentation; leave data.masks out, or add it")
        try:
            masks[number] = _mask(segmentation, size)
        except Exception as error:  # pycocotools raises almost anything
            raise DataError(
                f"{named}: a segmentation is {str(segmentation)[:40]} ({one_line(error)}): must be polygons, or run "
                f"lengths of {size[0]} x {size[1]} pixels; mend it, or leave data.masks out"
            ) from None
    return torch.from_numpy(masks)


def _mask(segmentation: Any, size: tuple[int, int]) -> Any:
    from pycocotools import mask

    if isinstance(segmentation, list):
        return mask.decode(mask.merge(mask.frPyObjects(segmentation, *size)))
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        return mask.decode(segmentation)
    if min(counts) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"its run lengths sum to {sum(counts)}")  # pycocotools would take the rest for background
    return mask.decode(mask.frPyObjects(segmentation, *size))
