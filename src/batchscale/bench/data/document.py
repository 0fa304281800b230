"""Blocks -> the JSON document of ``bench data``: rows, paired ratios, what the data are, conditions."""

from __future__ import annotations

from collections.abc import Sequence

from batchscale.bench.contender import Block
from batchscale.bench.data.contenders import FEED, OURS, PACKED, PIL, PROCESSES, TORCHVISION
from batchscale.bench.data.prepare import Prepared
from batchscale.bench.documents import DataDocument
from batchscale.bench.results import fastest_of, machine_conditions, minibatch_entry, ratio_entries, row
from batchscale.bench.rounds import Measured
from batchscale.records.provenance import version_of

_PACKAGES = ("torchvision", "pillow", "simplejpeg", "torchcodec", "opencv-python-headless", "opencv-python")


def document(name: str, prepared: Prepared, running: Sequence[Measured], notes: Sequence[str]) -> DataDocument:
    """What ``batchscale bench data --json`` prints.

    Args:
        name: of the recipe.
        prepared: assignments and data.
        running: every contender with its blocks, one a round, in the same order of rounds.
        notes: what was left out or changed.
    """
    assignment = prepared.assignments[0]
    wall = {m.contender.name: [_images(b) / b.wall_seconds for b in m.blocks] for m in running}
    cpu = {m.contender.name: [_images(b) / b.cpu_seconds for b in m.blocks] for m in running}
    best = fastest_of([contender for contender in wall if contender not in OURS], wall)
    pairs: dict[str, tuple[str, str | None]] = {"to_best_peer": (FEED, best)}
    if assignment.on_disk:
        pairs |= {"to_pil": (FEED, PIL), "packed_to_files": (PACKED, FEED)}
        if PROCESSES in wall:
            pairs |= {"processes_to_threads": (PROCESSES, FEED)}
    else:
        pairs |= {"to_torchvision": (FEED, TORCHVISION)}
    return DataDocument(
        recipe=name,
        threads=assignment.threads,
        data=prepared.data,
        minibatch=minibatch_entry(assignment),
        rows=[row(contender, wall[contender], cpu[contender]) for contender in wall],
        **ratio_entries(wall, cpu, pairs, relative=True),
        best_peer=best,
        conditions={
            **machine_conditions(),
            **{package: version for package in _PACKAGES if (version := version_of(package))},
            "rounds": len(running[0].blocks),
            "minibatches_per_turn": {m.contender.name: m.steps for m in running},
        },
        notes=list(notes),
    )


def _images(block: Block) -> int:
    """Those that were delivered."""
    return sum(answer["images"] for answer in block.answers)
