"""Images a second from memory: batchscale's ways beside plain PyTorch, in turn in one run."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.contenders import FROM_MEMORY
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.turns import in_turn, rows, started


def measure(setting: Setting) -> dict[str, Any]:
    """A row a contender, with its ratio to plain's; saved after every round."""
    with started(setting, FROM_MEMORY) as contenders:

        def document() -> dict[str, Any]:
            found = rows(contenders, "plain")
            to_fast = rows(contenders, "batchscale")["batchscale_exact"].get("ratio")
            return {"images_a_step": setting.step_images, "rows": found, "exact_to_batchscale": to_fast}

        in_turn(contenders, setting.rounds, lambda: setting.save("rates", document()))
        return document()
