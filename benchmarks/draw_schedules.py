"""Draws every all-reduce algorithm into docs/schedules/: python benchmarks/draw_schedules.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.report.draw.schedules import Round, draw_schedule

LENGTH = 840  # every piece that is drawn is a whole number of elements
HOSTS = [[0, 1, 2, 3], [4, 5, 6, 7]]
TITLES = {
    "ring": "ring of 8",
    "halving_doubling": "halving/doubling over 8",
    "binary_blocks": "binary blocks: 7 = 4 + 2 + 1",
    "torus": "torus of 4 x 2",
    "hierarchical": "hierarchical: two groups of 4, masters 0 and 4",
    "three_phase": "three phases: two hosts of 4",
    "direct": "direct over 8",
}


def main(folder: Path, suffix: str = ".svg") -> None:
    """One picture an algorithm; the suffix chooses SVG or PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COLLECTIVES:
        size = 7 if name == "binary_blocks" else 8
        hosts = HOSTS if name in ("hierarchical", "three_phase") else None
        collective = make(name, size, hosts, torus=(4, 2) if name == "torus" else None)
        steps = collective.steps(size, LENGTH)
        rounds = [Round(step.source, step.target, step.begin, step.end, step.add) for step in steps]
        draw_schedule(rounds, size, LENGTH, TITLES[name], folder / f"{name}{suffix}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "schedules")
