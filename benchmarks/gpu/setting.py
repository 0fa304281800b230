"""What all parts go by: the device, the net and its images, how long to measure, where the results lie."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import batchscale

# Forks of a server that has imported torch, and has not asked for a GPU: a process costs tenths of a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch._dynamo", "batchscale.run.run", "benchmarks.gpu.contenders"])

_CLASSES = 1000


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Args:
        device: cuda or cpu.
        tiny: a rehearsal: a small net and few steps, whose speeds say nothing.
        out: the folder of the results.
    """

    device: str
    tiny: bool
    out: Path

    @property
    def where(self) -> torch.device:
        """The device."""
        return torch.device(self.device, 0) if self.device == "cuda" else torch.device("cpu")

    def of(self, full: Any, tiny: Any) -> Any:
        """A number of the real run, or of the rehearsal."""
        return tiny if self.tiny else full

    @property
    def model(self) -> str:
        """The net."""
        return str(self.of("resnet50", "resnet8"))

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return int(self.of(224, 32))

    @property
    def workers(self) -> int:
        """k."""
        return int(self.of(8, 2))

    @property
    def per_worker(self) -> int:
        """n."""
        return int(self.of(32, 4))

    @property
    def step_images(self) -> int:
        """kn."""
        return self.workers * self.per_worker

    @property
    def block_seconds(self) -> float:
        """Of a turn."""
        return float(self.of(4.0, 0.05))

    @property
    def rounds(self) -> int:
        """Turns of each contender: forwards, backwards, forwards."""
        return int(self.of(3, 2))

    def recipe(self, **entries: Any) -> dict[str, Any]:
        """The entries of a run on images in memory, long enough that no epoch ends it."""
        return {
            "data": {"name": "own"},
            "model": {"name": self.model},
            "minibatch": {"workers": self.workers, "per_worker": self.per_worker},
            "epochs": 1e6,
            "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4},
            "learning_rate": {"reference": 0.01, "reference_minibatch": self.step_images},
            "precision": "bf16",
            "numerics": {"threads": 1} if self.tiny else {},
            "execution": {"device": self.device},
            **entries,
        }

    def dataset(self, images: int, test: int = 8, side: int | None = None) -> batchscale.Dataset:
        """Images of random bytes, which repeat: their making is not to take longer than the part."""
        generator = torch.Generator().manual_seed(0)
        side = side or self.side
        drawn = torch.randint(0, 256, (min(images, 256), 3, side, side), dtype=torch.uint8, generator=generator)
        pictures = drawn.repeat(-(-images // len(drawn)), 1, 1, 1)[:images]
        labels = torch.randint(0, _CLASSES, (images,), generator=generator)
        labels[0] = _CLASSES - 1
        return batchscale.Dataset("own", pictures, labels, pictures[:test], labels[:test], _CLASSES)

    def save(self, part: str, document: dict[str, Any]) -> None:
        """Write what a part has found so far: a part that runs out of time keeps it."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{part}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
