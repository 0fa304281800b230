"""Where two runs begin to differ: the first differing step, and at checkpoints the first differing tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes

from batchscale.build.state import open_state
from batchscale.data.contents import difference
from batchscale.errors import CheckpointError, FolderError
from batchscale.records import RunRecords
from batchscale.records.folder import holds_run
from batchscale.run.opening import trained_on
from batchscale.training.checkpoint import folders, steps_of

_OF_WEIGHTS = ("weights_sha256", "weights_checksum")
"""Entries of a line that tell its weights from others, the stronger one first."""


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Compare two runs by their records.

    Lines of metrics.jsonl are compared by weights_sha256 where both have it (exact mode), by weights_checksum where
    both have that (exact mode on a GPU), else by loss.

    Args:
        first, second: folders of runs.

    Returns:
        equal (True, False, or None where nothing could be compared), compared_by, common_steps,
        first_differing_step, checkpoints (step -> first differing tensor or None), final_weights (the same),
        data ("equal", what differs between those trained on, or None where a run has not recorded them).

    Raises:
        FolderError: a folder holds no run.
    """
    for folder in (first, second):
        if not holds_run(folder):
            raise FolderError(f"{folder}: holds no run; give the folder of a run")
    lines = [{line["step"]: line for line in RunRecords(f).metrics() if "step" in line} for f in (first, second)]
    common = sorted(lines[0].keys() & lines[1].keys())
    entries = (entry for entry in _OF_WEIGHTS if all(entry in side[s] for side in lines for s in common))
    by = next(entries, "loss")
    differing = next((s for s in common if lines[0][s].get(by) != lines[1][s].get(by)), None)
    steps = sorted({f.name for f in folders(first)} & {f.name for f in folders(second)})
    checkpoints = {int(s.removeprefix("step-")): _checkpoints(first, second, s) for s in steps}
    final = _final(first, second)
    data, other = trained_on(first), trained_on(second)
    known = [differing is None] if common else []
    known += [tensor is None for tensor in checkpoints.values()] + ([final == "equal"] if final else [])
    return {
        "equal": all(known) if known else None,
        "compared_by": by if common else None,
        "common_steps": len(common),
        "first_differing_step": differing,
        "checkpoints": checkpoints,
        "final_weights": final,
        "data": (difference(data, other, ("first", "second")) or "equal") if data and other else None,
    }


def _first_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> str | None:
    for name in sorted({*a, *b}):
        if name not in a or name not in b or a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
            return name
        if not torch.equal(_bytes(a[name]), _bytes(b[name])):
            return name
    return None


def _checkpoints(first: Path, second: Path, step: str) -> str | None:
    try:
        states = [open_state(folder, steps_of(Path(step))).tensors for folder in (first, second)]
    except CheckpointError as error:
        return f"not comparable: {error}"
    return _first_difference(states[0], states[1])


def _final(first: Path, second: Path) -> str | None:
    """ "equal", the first differing tensor, or None where a run has no final weights."""
    paths = [f / "weights.safetensors" for f in (first, second)]
    if not all(p.is_file() for p in paths):
        return None
    try:
        return _first_difference(*(from_bytes(path.read_bytes()) for path in paths)) or "equal"
    except (SafetensorError, OSError) as error:
        return f"not comparable: {error}"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bits of a tensor (a NaN equals itself)."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
