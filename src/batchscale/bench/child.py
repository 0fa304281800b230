"""One process of a contender: ``python -m batchscale.bench.child KIND TASK PARENT_PID``, started by ``contender``."""

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
    """The module whose ``main(task, meter)`` is what this contender does without end.

    Its task is a ``bench.task.Task``, unless the module has a ``TASK`` of its own.
    """
    return _MODULES.get(kind, f"batchscale.bench.peers.{kind}")


def main() -> None:
    """Run without end, measured by the parent."""
    kind, task_line, parent = sys.argv[1:]
    die_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    import torch

    from batchscale.bench.meter import Meter
    from batchscale.bench.task import Task

    module = importlib.import_module(module_of(kind))
    task = getattr(module, "TASK", Task).from_json(task_line)
    torch.set_num_threads(task.threads)
    module.main(task, Meter(sys.stdin, answers))


if __name__ == "__main__":
    main()
