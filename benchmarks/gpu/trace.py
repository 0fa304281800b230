"""Where steps wait: waits of the host, pageable copies, kernels and idle time of a step of each contender."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.contenders import FROM_MEMORY
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.turns import started


def measure(setting: Setting) -> dict[str, Any]:
    """Figures of each contender, or why there are none."""
    rows: dict[str, Any] = {}
    with started(setting, [name for name in FROM_MEMORY if name != "plain_eager"]) as contenders:
        for contender in contenders:
            figures = None if contender.error else contender.ask("trace")
            rows[contender.name] = {"error": contender.error, "start": contender.start, **(figures or {})}
            setting.save("trace", {"rows": rows})
    return {"rows": rows}
