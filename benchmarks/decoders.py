"""Decoding by processes against threads: images a second, and what a small torch call takes beside it, in one run.

python benchmarks/decoders.py [FOLDER] [--decoders 1 2] [--rounds 7] [--seconds 1.5] [--json]

The photographs of FOLDER (else crops of scikit-learn's two) are made 500 x 375 and written as JPEG of quality 90 into
class folders. Minibatches of them are decoded, cropped by scale and aspect to 224 x 224, mirrored, by so many threads
or processes, two minibatches at a time, while the main thread adds 1 to 16 numbers again and again: in the place of one
that launches kernels. The ways run in turn, in another order each round; "alone" decodes nothing. Printed: medians with
their interquartile range, and the median of paired ratios, processes to threads. "CPU an image" is what the other
threads of this process use: the most that the interpreter lock may be held for, and what a busy machine leaves alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from batchscale.bench.data.sample import photographs
from batchscale.bench.results import machine_conditions
from batchscale.bench.statistics import paired_ratio, spread
from batchscale.bench.turns import in_turn
from batchscale.data import Reading, open_dataset
from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import Examples
from batchscale.data.threads import compute_alone

IMAGES, MINIBATCH = 64, 32

_MEASURED = {"images_per_second": "rates", "call_microseconds": "calls", "cpu_microseconds": "cpu"}


def pictures(folder: Path | None) -> Iterator[bytes]:
    """JPEG files of 500 x 375."""
    if folder is None:
        yield from (content for _, _, content in photographs())
        return
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")):
        stream = io.BytesIO()
        image = Image.open(path).convert("RGB").resize((500, 375), Image.Resampling.LANCZOS)
        image.save(stream, "JPEG", quality=90)
        yield stream.getvalue()


def write(folder: Path | None, into: Path) -> tuple[int, int]:
    """Class folders of IMAGES files, some of them twice where there are fewer; (different ones, mean bytes)."""
    contents = list(pictures(folder))[:IMAGES]
    for number in range(IMAGES):
        for part in ("train", "val"):
            path = into / part / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[number % len(contents)])
    return len(contents), sum(map(len, contents)) // len(contents)


class Way:
    """Somebody who decodes, or nobody; ``block`` measures for some seconds.

    Args:
        examples: that are decoded; None for none.
    """

    def __init__(self, examples: Examples | None) -> None:
        augmentation = Augmentation(flip=True, scale_aspect=True)
        self._minibatch = None if examples is None else examples.augmented(0, augmentation)
        self.rates: list[float] = []
        self.calls: list[float] = []
        self.cpu: list[float] = []
        self._decoded, self._lock = 0, threading.Lock()

    def _decode(self, first_epoch: int, stop: threading.Event) -> None:
        compute_alone()
        epoch = first_epoch
        while self._minibatch is not None and not stop.is_set():
            self._minibatch(np.full(MINIBATCH, epoch), np.arange(MINIBATCH) + MINIBATCH * (epoch % 2))
            epoch += 1
            with self._lock:
                self._decoded += MINIBATCH

    def block(self, seconds: float) -> None:
        """Decode and call."""
        stop, self._decoded = threading.Event(), 0
        threads = [threading.Thread(target=self._decode, args=(n, stop)) for n in range(2)]
        numbers, calls, start = torch.zeros(16), 0, time.perf_counter()
        cpu = time.process_time() - time.thread_time()
        for thread in threads:
            thread.start()
        while time.perf_counter() - start < seconds:
            for _ in range(100):
                numbers.add_(1)
            calls += 100
        self.calls.append((time.perf_counter() - start) / calls * 1e6)
        stop.set()
        for thread in threads:
            thread.join()
        self.rates.append(self._decoded / (time.perf_counter() - start))
        cpu = time.process_time() - time.thread_time() - cpu
        self.cpu.append(cpu / max(self._decoded, 1) * 1e6)


def measure(folder: Path, decoders: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The row of so many decoders."""
    ways = {"alone": Way(None)}
    for who in ("threads", "processes"):
        data = open_dataset("folder", folder, Reading(224, threads=decoders, decoders=who))  # type: ignore[arg-type]
        ways[who] = Way(data.train)
    for way in ways.values():
        way.block(seconds)
        way.rates.clear()
        way.calls.clear()
        way.cpu.clear()
    for number in range(rounds):
        for way in in_turn(list(ways.values()), number):
            way.block(seconds)
    row: dict[str, Any] = {"decoders": decoders}
    for name, way in ways.items():
        row[name] = {
            "images_per_second": asdict(spread(way.rates)),
            "call_microseconds": asdict(spread(way.calls)),
            "cpu_microseconds": asdict(spread(way.cpu)),
        }
    for name, of in _MEASURED.items():
        row[f"{name}_ratio"] = asdict(paired_ratio(getattr(ways["processes"], of), getattr(ways["threads"], of)))
    return row


def text(row: dict[str, Any]) -> str:
    """A row as lines."""
    lines = [f"{row['decoders']} decoder(s)"]
    for name in ("alone", "threads", "processes"):
        images, call, cpu = (row[name][measured] for measured in _MEASURED)
        lines.append(
            f"  {name:10} {images['median']:8.0f} images/s (iqr {images['iqr']:.0f})"
            f"   a small call {call['median']:7.2f} us (iqr {call['iqr']:.2f})"
            f"   {cpu['median']:7.0f} us CPU an image (iqr {cpu['iqr']:.0f})"
        )
    for name in _MEASURED:
        ratio = row[f"{name}_ratio"]
        lines.append(f"  processes / threads, {name}: {ratio['median']:.2f} (iqr {ratio['iqr']:.2f})")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--decoders", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        different, mean_bytes = write(options.folder, Path(scratch))
        rows = [measure(Path(scratch), n, options.rounds, options.seconds) for n in options.decoders]
    conditions = {**machine_conditions(), "load": os.getloadavg()[0], "pictures": different, "mean_bytes": mean_bytes}
    if options.json:
        print(json.dumps({"rows": rows, "conditions": conditions}))
        return
    print("\n".join([*map(text, rows), str(conditions)]))


if __name__ == "__main__":
    main()
