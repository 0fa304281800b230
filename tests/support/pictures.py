"""Pictures for tests: real photographs where they lie on this machine, else noise that looks alike to a decoder."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

_ROOT = Path(__file__).resolve().parents[2]


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth random picture with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))


def photographs(number: int) -> list[Image.Image]:
    """500 x 375 each."""
    named = os.environ.get("BATCHSCALE_DATA", "")
    folders = [Path(named) if named else _ROOT.parent / "shared" / "data", _ROOT.parent / "shared" / "data"]
    files = sorted(p for folder in folders for p in folder.glob("coco_cc/train2017/*.jpg"))[:number]
    if len(files) < number:
        return [noise(375, 500, seed) for seed in range(number)]
    return [Image.open(p).convert("RGB").resize((500, 375), Image.Resampling.LANCZOS) for p in files]


def jpeg(image: Image.Image, chroma: str = "4:2:0", quality: int = 90) -> bytes:
    """JPEG bytes; chroma is a subsampling, "grey" or "progressive"."""
    stream = io.BytesIO()
    kind = {"progressive": {"progressive": True}, "grey": {}}.get(chroma, {"subsampling": chroma})
    (image.convert("L") if chroma == "grey" else image).save(stream, "JPEG", quality=quality, **kind)
    return stream.getvalue()


def write_classes(part: Path, classes: dict[str, int], height: int = 60, width: int = 80) -> list[Path]:
    """part/<class>/<class>_<number>.JPEG, so many of each class; each picture is another."""
    written = []
    for label, (name, number) in enumerate(classes.items()):
        (part / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            path = part / name / f"{name}_{i}.JPEG"
            path.write_bytes(jpeg(noise(height + i, width, seed=97 * label + i)))
            written.append(path)
    return written


def write_set(root: Path, train: int = 12, val: int = 4) -> Path:
    """Three classes with wnids for names, in train and val."""
    wnids = ["n01440764", "n01443537", "n02119789"]
    write_classes(root / "train", dict.fromkeys(wnids, train))
    write_classes(root / "val", dict.fromkeys(wnids, val))
    return root


PICTURE = jpeg(noise(9, 12))


def write_flat(root: Path, classes: list[str], files: list[str], content: str | bytes, name: str = "val.txt") -> Path:
    """A flat validation folder with a list of its labels; returns the list."""
    write_classes(root / "train", dict.fromkeys(classes, 1), 9, 12)
    (root / "val").mkdir()
    for file in files:
        (root / "val" / file).write_bytes(PICTURE)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / name
