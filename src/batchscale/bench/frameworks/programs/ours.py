"""batchscale: the parts of its trainer, in fast mode, one worker a process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol import ProcessWork, Setting, begin, serve

WORK = begin()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from batchscale.build.build import build  # noqa: E402
from batchscale.build.inputs import load_data  # noqa: E402
from batchscale.comm import World  # noqa: E402
from batchscale.recipe import recipe_from  # noqa: E402
from batchscale.records.provenance import version_of  # noqa: E402


class OwnTraining:
    """Its own feed gives the examples: the order that the other frameworks are given is its order."""

    def __init__(self, work: ProcessWork) -> None:
        recipe = recipe_from(work.content)
        self._world = World.connect(torch.device("cpu"), recipe.execution.timeout_seconds)
        self._parts: Any = None
        self._dataset = load_data(recipe, Path(work.data_folder) if work.data_folder else None)

    def steps(self, setting: Setting) -> Iterator[float]:
        """The trainer's steps."""
        if self._parts is not None:
            self._parts.close()
        self._parts = parts = build(recipe_from(setting.content), self._world, self._dataset)
        feed = parts.make_feed()
        for step in itertools.count():
            yield parts.step(step, feed.passes(step)).read().numbers["loss"][0]

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """By the running averages over all workers."""
        model = self._parts.model.eval()
        logits: np.ndarray = model(torch.from_numpy(images)).numpy()
        model.train()
        return logits


if __name__ == "__main__":
    serve(WORK, OwnTraining, version=version_of("batchscale"))
