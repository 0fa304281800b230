"""Training from JPEG files: the feed alone, training beside training from memory and beside a DataLoader, nvJPEG."""

from __future__ import annotations

import functools
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from batchscale.bench.data.sample import write
from batchscale.bench.statistics import paired_ratio
from benchmarks.gpu.setting import PROCESSES, Setting
from benchmarks.gpu.turns import Contender, in_turn, rows, started

_CONTENDERS = ("batchscale", "batchscale_jpeg", "plain_dataloader")


def measure(setting: Setting) -> dict[str, Any]:
    """Saved after every round."""
    with tempfile.TemporaryDirectory(prefix="batchscale-gpu-") as scratch:
        folder = Path(scratch)
        write(_files(setting), folder, lambda: None)
        document: dict[str, Any] = {"on_device": _on_device(setting, folder)}
        with started(setting, _CONTENDERS, folder) as contenders:

            def save() -> None:
                document["rows"] = rows(contenders, "batchscale")
                document["to_memory"] = _ratio(contenders, "batchscale_jpeg", "batchscale")
                document["to_loader"] = _ratio(contenders, "batchscale_jpeg", "plain_dataloader")
                setting.save("jpeg", document)

            in_turn(contenders, setting.rounds, save)
            ours = next(contender for contender in contenders if contender.name == "batchscale_jpeg")
            document["beside"] = None if ours.error else ours.ask("beside")
    return document


def _ratio(contenders: list[Contender], above: str, below: str) -> dict[str, float] | None:
    speeds = {c.name: [block["images_per_second"] for block in c.blocks] for c in contenders}
    ours, theirs = speeds[above], speeds[below]
    return vars(paired_ratio(ours, theirs)) if ours and len(ours) == len(theirs) else None


def _files(setting: Setting) -> Iterator[tuple[str, str, bytes]]:
    """Class, extension and content of each file; made by all cores."""
    count, (width, height) = setting.of(4096, 16), setting.of((500, 375), (80, 60))
    with PROCESSES.Pool(setting.of(16, 1)) as pool:
        make = functools.partial(_crop, width, height)
        for number, content in enumerate(pool.imap(make, range(count), chunksize=16)):
            yield f"class{number % 2}", ".jpg", content


@functools.cache
def _photographs() -> list[Any]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def _crop(width: int, height: int, number: int) -> bytes:
    """A crop of one of scikit-learn's two photographs, each another one, as JPEG."""
    draw = np.random.default_rng(number)
    whole = _photographs()[number % 2]
    cut_height = whole.height * draw.uniform(0.6, 1.0)
    cut_width = cut_height * width / height
    left, top = draw.uniform(0, whole.width - cut_width), draw.uniform(0, whole.height - cut_height)
    box = (left, top, left + cut_width, top + cut_height)
    stream = io.BytesIO()
    whole.resize((width, height), Image.Resampling.LANCZOS, box).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _on_device(setting: Setting, folder: Path) -> dict[str, Any]:
    """Images a second that torchvision decodes on the device (nvJPEG on a GPU); other pixels than libjpeg's."""
    files = sorted((folder / "images" / "train").rglob("*.jpg"))[: setting.of(256, 8)]
    encoded = [torch.from_numpy(np.frombuffer(file.read_bytes(), np.uint8).copy()) for file in files]
    try:
        decode_jpeg(encoded, device=setting.device)
        seconds, images, start = setting.of(4.0, 0.1), 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            images += len(decode_jpeg(encoded, device=setting.device))
        if setting.device == "cuda":
            torch.cuda.synchronize()
        return {"images_per_second": images / (time.perf_counter() - start)}
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}
