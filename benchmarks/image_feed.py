"""Minibatches of 224 x 224 crops from JPEG files, ready to train on: the feed beside torchvision and a DataLoader.

python benchmarks/image_feed.py FOLDER [--images 960] [--rounds 5] [--threads 2] [--json]

The photographs of FOLDER are made 500 x 375, quality 90, and written as class folders into a temporary folder. Each way
gives normalised float32 minibatches of 64 (batchscale: as 2 workers of 32), from files, on as many decoding threads or
loader workers as --threads; torchcodec and OpenCV join where they are installed.
Ways run in turn; images per CPU-second of the whole process tree, images/s, and the median of paired ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jpeg_decode import photographs
from simplejpeg import decode_jpeg as decode_simplejpeg
from torchvision import io as tv_io
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.data import DATASETS, Reading, open_dataset
from batchscale.data.feed import Feed, Normalizer
from batchscale.data.images import Augmentation
from batchscale.minibatch import Minibatch, StepPlan

MINIBATCH = 64
MEAN, STD = DATASETS["folder"].mean, DATASETS["folder"].std


def write(root: Path, data: list[bytes], images: int) -> None:
    """Ten class folders, the photographs over and over."""
    for i in range(images):
        folder = root / "train" / f"n{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.JPEG").write_bytes(data[i % len(data)])
        (root / "val" / f"n{i % 10}").mkdir(parents=True, exist_ok=True)
        (root / "val" / f"n{i % 10}" / "0.JPEG").write_bytes(data[0])


def ours(root: Path, threads: int) -> Callable[[], Iterator[Any]]:
    """The feed, as the engine builds it."""
    train = open_dataset("folder", root, Reading(threads=threads)).train
    steps = len(train) // MINIBATCH

    def epoch() -> Iterator[Any]:
        feed = Feed(
            train, plan=StepPlan(Minibatch(2, MINIBATCH // 2), len(train), 1, "drop"),
            workers=range, micro_batch=MINIBATCH // 2, seed=0, augmentation=Augmentation(flip=True, scale_aspect=True),
            normalizer=Normalizer(MEAN, STD, torch.float32, torch.channels_last, torch.device("cpu")),
        )  # fmt: skip
        for step in range(steps):
            yield feed.passes(step)
        feed.close()

    return epoch


def loader(root: Path, threads: int, transform: Any, read: Any) -> Callable[[], Iterator[Any]]:
    """ImageFolder in a DataLoader with workers that stay."""
    kind = {"loader": read} if read else {}
    data = ImageFolder(str(root / "train"), transform, **kind)
    made = torch.utils.data.DataLoader(
        data, MINIBATCH, shuffle=True, num_workers=threads, drop_last=True, persistent_workers=True
    )
    return lambda: iter(made)


def ways(root: Path, threads: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """Name -> a function that begins an epoch."""
    mean, std = [m / 255 for m in MEAN], [s / 255 for s in STD]
    usual = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
         transforms.Normalize(mean, std)]
    )  # fmt: skip
    tensor = v2.Compose(
        [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
         v2.Normalize(mean, std)]
    )  # fmt: skip
    made = {
        "ImageFolder, PIL": loader(root, threads, usual, None),
        "ImageFolder, torchvision.io + v2": loader(
            root, threads, tensor, lambda path: tv_io.decode_image(tv_io.read_file(path), tv_io.ImageReadMode.RGB)
        ),
        "batchscale": ours(root, threads),
    }
    with suppress(ImportError):
        from torchcodec.decoders import decode_jpeg

        made["ImageFolder, torchcodec + v2"] = loader(
            root, threads, tensor, lambda path: decode_jpeg(Path(path).read_bytes())
        )
    with suppress(ImportError):
        made["ImageFolder, simplejpeg + OpenCV"] = loader(
            root, threads, opencv(mean, std), lambda path: decode_simplejpeg(Path(path).read_bytes(), fastupsample=True)
        )
    return made


def opencv(mean: list[float], std: list[float]) -> Callable[[np.ndarray], torch.Tensor]:
    """The crop by OpenCV's two taps (not antialiased), without its threads."""
    import cv2

    cv2.setNumThreads(1)
    normalize = v2.Normalize(mean, std)

    def transform(image: np.ndarray) -> torch.Tensor:
        whole = torch.empty(1).expand(3, *image.shape[:2])  # its size is what is asked for
        top, left, height, width = transforms.RandomResizedCrop.get_params(whole, (0.08, 1.0), (3 / 4, 4 / 3))
        image = cv2.resize(image[top : top + height, left : left + width], (224, 224), interpolation=cv2.INTER_LINEAR)
        if torch.rand(()) < 0.5:
            image = cv2.flip(image, 1)
        return normalize(torch.from_numpy(image).permute(2, 0, 1).float().div_(255))

    return transform


def tree_seconds() -> float:
    """CPU seconds of this process and its living children."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(entry.name) == os.getpid() or int(words[1]) == os.getpid():
            total += (int(words[11]) + int(words[12])) / tick
    return total


def main() -> None:
    """Time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary), photographs(options.folder, 60, 90), options.images)
        made = ways(Path(temporary), options.threads)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        for round_ in range(options.rounds + 1):
            for name, epoch in made.items():
                start, cpu = time.perf_counter(), tree_seconds()
                images = sum(MINIBATCH for _ in epoch())
                wall, used = time.perf_counter() - start, tree_seconds() - cpu
                if round_:
                    rates[name].append((images / wall, images / used))
    rows = []
    for name, pairs in rates.items():
        walls, cpus = [w for w, _ in pairs], [c for _, c in pairs]
        ratio = paired_ratio([c for _, c in rates["batchscale"]], cpus)
        rows.append((name, spread(walls).median, spread(cpus).median, ratio.median, ratio.iqr))
    if options.json:
        names = ("name", "images_per_second", "images_per_cpu_second", "batchscale_to_it", "iqr")
        print(json.dumps({"threads": options.threads, "rows": [dict(zip(names, row, strict=True)) for row in rows]}))
        return
    for name, wall, cpu, ratio_, iqr in rows:
        print(f"{name:<34} {wall:6.0f} images/s {cpu:6.0f} images/CPU-s   batchscale {ratio_:.2f} x (iqr {iqr:.2f})")


if __name__ == "__main__":
    main()
