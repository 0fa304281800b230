"""Average precision as COCO counts it, by pycocotools, of predictions that are plain data.

Source: Lin et al. 2014; the evaluation's parameters are pycocotools' own (IoU 0.5 to 0.95, at most 100 boxes an image).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch

from batchscale.errors import RecipeError

Found = Mapping[str, Any]
"""Of an image: boxes as lists x, y, width, height; labels; scores or crowd; masks run-length encoded."""


def check_installed() -> None:
    """Raise unless pycocotools is there.

    Raises:
        RecipeError: the way to install it.
    """
    if find_spec("pycocotools") is None:
        raise RecipeError(
            "task=detection: pycocotools, which its scores come from, is not installed; run pip install "
            "'batchscale[detection]'"
        )


def encoded(objects: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """An image's objects as plain data: of a target, or of what a detector gives.

    Args:
        objects: boxes (b, 4) as x1, y1, x2, y2, labels (b,); scores (b,), crowd (b,), masks (b, H, W) or a detector's
            (b, 1, H, W) of probabilities, where there are some.
    """
    boxes = objects["boxes"].detach().double().cpu()
    plain: dict[str, Any] = {
        "boxes": torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist(),
        "labels": objects["labels"].tolist(),
    }
    for name in ("scores", "crowd"):
        if name in objects:
            plain[name] = objects[name].tolist()
    if "masks" in objects:
        plain["masks"] = _run_lengths(objects["masks"])
    return plain


def _run_lengths(masks: torch.Tensor) -> list[dict[str, Any]]:
    from pycocotools import mask

    binary = (masks[:, 0] > 0.5 if masks.ndim == 4 else masks > 0).to(torch.uint8).cpu().numpy()
    return [mask.encode(np.asfortranarray(each)) for each in binary]


def average_precisions(images: Sequence[Mapping[str, Any]], kind: Literal["bbox", "segm"]) -> dict[str, float]:
    """ "ap", "ap50" and "ap75" in percent; 0 where no object is true, or none is found.

    Args:
        images: in their order, each {"size": [H, W], "truth": objects, "detected": objects}, as ``encoded``.
        kind: by boxes, or by masks.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = [_entry(number, place, image["truth"], kind) for number, image in enumerate(images)
             for place in range(len(image["truth"]["labels"]))]  # fmt: skip
    detected = [_entry(number, place, image["detected"], kind) for number, image in enumerate(images)
                for place in range(len(image["detected"]["labels"]))]  # fmt: skip
    if not truth or not detected:
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    with redirect_stdout(io.StringIO()):  # it prints; standard output is the command's
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": number, "height": image["size"][0], "width": image["size"][1]}
                       for number, image in enumerate(images)],
            "categories": [{"id": label} for label in sorted({entry["category_id"] for entry in truth})],
            "annotations": [entry | {"id": number} for number, entry in enumerate(truth, 1)],
        }  # fmt: skip
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(detected), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (100 * max(float(value), 0.0) for value in evaluation.stats[:3])  # -1: every object is a crowd
    return {"ap": ap, "ap50": ap50, "ap75": ap75}


def _entry(number: int, place: int, objects: Found, kind: str) -> dict[str, Any]:
    """One object in COCO's form."""
    x, y, width, height = objects["boxes"][place]
    entry: dict[str, Any] = {
        "image_id": number,
        "category_id": objects["labels"][place],
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": int(objects["crowd"][place]) if "crowd" in objects else 0,
    }
    if kind == "segm":
        entry["segmentation"] = objects["masks"][place]
        if "scores" in objects:
            del entry["bbox"]  # loadRes would take the boxes for what is judged
    if "scores" in objects:
        entry["score"] = objects["scores"][place]
    return entry
