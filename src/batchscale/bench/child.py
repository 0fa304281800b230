"""One process of a contender, started by ``contender``: ``python -m batchscale.bench.child KIND ASSIGNMENT PARENT``."""

from __future__ import annotations

import importlib
import os
import sys

from batchscale.launch.signals import die_with_parent

_MODULES = {
    "ceiling": "batchscale.bench.ceiling",
    "batchscale": "batchscale.bench.ours",
    "batchscale_exact": "batchscale.bench.ours_exact",
    "allreduce": "batchscale.bench.allreduce.process",
    "data": "batchscale.bench.data.process",
}  # every other name is a peer's


def module_of(kind: str) -> str:
    """The module whose ``main(assignment, meter)`` is what this contender does without end.

    Its assignment is a ``bench.assignment.Assignment``, unless the module names another class as ``ASSIGNMENT``.
    """
    return _MODULES.get(kind, f"batchscale.bench.peers.{kind}")


def main() -> None:
    """Run without end, measured by the parent."""
    kind, line, parent = sys.argv[1:]
    die_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    import torch

    from batchscale.bench.assignment import Assignment
    from batchscale.bench.meter import Meter

    module = importlib.import_module(module_of(kind))
    assignment = getattr(module, "ASSIGNMENT", Assignment).from_json(line)
    torch.set_num_threads(assignment.threads)
    module.main(assignment, Meter(sys.stdin, answers))


if __name__ == "__main__":
    main()
