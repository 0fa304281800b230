"""14 million images: memory and time of the index and of the shuffle, no pixel read.

python benchmarks/many_entries.py [ENTRIES] [--folder DIR]

Writes a made-up packed index (names as ImageNet's, no images) into a temporary folder below DIR, opens it in a process
of its own, and draws 100 minibatches of 8,192 places of the epoch's one shuffle. The index is mapped: its pages are the
system's file cache, shared by all processes; "own" is memory that no other process can share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES, MINIBATCH, STEPS = 1000, 8192, 100


def write(folder: Path, entries: int) -> None:
    """A packed part without pixels."""
    from batchscale.data.folders.pack import write_index

    labels = np.repeat(np.arange(CLASSES), -(-entries // CLASSES))[:entries]
    text = b"".join(b"n%08d_%08d.JPEG" % (label, i) for i, label in enumerate(labels.tolist()))
    width = len(text) // entries
    arrays = {
        "starts": np.zeros(entries + 1, np.int64),
        "labels": labels,
        "crc32": np.zeros(entries, np.uint32),
        "name_starts": np.arange(entries + 1) * width,
        "names": np.frombuffer(text, np.uint8),
    }
    write_index(folder / "train.index", {"classes": [f"n{c:08}" for c in range(CLASSES)], "sha256": []}, arrays)
    (folder / "train.images").write_bytes(b"")


def memory() -> dict[str, int]:
    """Bytes of this process: own, and mapped from files."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[field].split()[0]) << 10 for name, field in (("own", "RssAnon"), ("mapped", "RssFile"))}


def measure(folder: Path) -> None:
    """Open, shuffle, say."""
    from batchscale.data.folders.packed import PackedEntries
    from batchscale.data.folders.stored import StoredImages
    from batchscale.randomness import key, shuffled

    before, start = memory(), time.perf_counter()
    images = StoredImages(PackedEntries(folder / "train.index"), 224, False, 1)
    opened = time.perf_counter() - start
    found = {"entries": len(images), "open_seconds": round(opened, 3)}
    start = time.perf_counter()
    for step in range(STEPS):
        places = np.arange(step * MINIBATCH, (step + 1) * MINIBATCH) % len(images)
        which = shuffled(key(0, 0, 0), places, len(images))
        images.labels[which]
    found["milliseconds_a_minibatch"] = round(1e3 * (time.perf_counter() - start) / STEPS, 3)
    found["index_bytes"] = (folder / "train.index").stat().st_size
    after = memory()
    found |= {f"{name}_bytes": after[name] - before[name] for name in after}
    print(json.dumps(found))


def main() -> None:
    """Write, then measure in another process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", type=int, nargs="?", default=14_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(Path(folder), options.entries)
        subprocess.run([sys.executable, __file__, "--measure", folder], check=True)


if __name__ == "__main__":
    main()
