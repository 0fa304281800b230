"""What a study asks of Slurm: sbatch's options as a user gives them, and the tasks and nodes of a run.

nodes = ceil(W / tasks a node),   tasks on a node = ceil(W / nodes)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchscale.errors import UsageError
from batchscale.recipe import Recipe
from batchscale.study.runner.work import Work

_TASKS, _CPUS, _GPUS = "ntasks-per-node", "cpus-per-task", "gpus-per-node"
_OTHER_GPUS = ("gpus", "gpus-per-task", "gpus-per-socket", "gres")
_LONGEST_MINUTES = 24 * 60  # submitit asks for 5 minutes where nothing is said; SBATCH_TIMELIMIT goes before this
_LEAD_SECONDS = 90  # from the signal to the limit, as submitit has it; it asks for SIGUSR2, which no run hears
_LEAD_SHARE = 3  # of a shorter limit a third: a signal at the start of a job would burn it
_WHOLE = ("[1-9][0-9]{0,6}", "a whole number of at least 1")
_MEMORY = ("[0-9]{1,12}[KMGT]?B?", "a size, such as 16G")
_FORMS = {
    _TASKS: _WHOLE,
    _CPUS: _WHOLE,
    _GPUS: ("([A-Za-z][A-Za-z0-9_.-]*:)?[1-9][0-9]{0,6}", "a number of GPUs, such as 4 or h100:4"),
    "time": (
        "[0-9]+(:[0-5]?[0-9]){0,2}|[0-9]+-[0-9]{1,2}(:[0-5]?[0-9]){0,2}|UNLIMITED|INFINITE",
        "a time of Slurm: minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS",
    ),
    "mem": _MEMORY,
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
}
"""Option: (the form of its value, in words). Of other options Slurm itself is asked, before anything is submitted."""

_OURS = {
    **dict.fromkeys(("nodes", "ntasks"), f"the study counts them from a run's processes; give {_TASKS}=N"),
    **dict.fromkeys(
        ("array", "wrap", "wait", "clusters"), "a study submits each of its runs by itself, to one cluster"
    ),
    **dict.fromkeys(("parsable", "quiet", "test-only", "help", "usage", "version"), "sbatch would not say the number"),
    **dict.fromkeys(("output", "error"), "the output goes to submitit/ in the study's folder"),
}


@dataclass(frozen=True)
class Allotment:
    """What the cluster gives one run: as many tasks as processes, which form the run.

    Args:
        tasks: W.
        nodes: that they lie on.
        tasks_per_node: at most.
        cpus_per_task: cores of each.
        gpus_per_node: with their type where one was named; None: none are asked for.
        lead_seconds: the signal to stop goes before the time limit.
    """

    tasks: int
    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: str | None
    lead_seconds: int = _LEAD_SECONDS

    def parameters(self) -> dict[str, Any]:
        """As submitit's executor for Slurm takes them."""
        gpus = {} if self.gpus_per_node is None else {"gpus_per_node": self.gpus_per_node}
        return {
            "time": _LONGEST_MINUTES,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "cpus_per_task": self.cpus_per_task,
            **gpus,
            # Since Slurm 22.05 srun does not take it over from sbatch: each task would have one core.
            "srun_args": [f"--cpus-per-task={self.cpus_per_task}"],
            "additional_parameters": {"ntasks": self.tasks, "signal": f"USR1@{self.lead_seconds}"},
        }


@dataclass(frozen=True)
class Cluster:
    """Options of sbatch for all jobs of a study; they go before Slurm's variables (SBATCH_PARTITION, ...).

    Args:
        options: name -> value, None for one without.
    """

    options: Mapping[str, str | None] = field(default_factory=dict)

    def task_cores(self, recipe: Recipe) -> int:
        """Of each task: as asked, else one a thread of the recipe."""
        threads = recipe.numerics.threads
        return self._whole(_CPUS) or (threads if isinstance(threads, int) else 1)

    def allotment(self, work: Work) -> Allotment:
        """The tasks and nodes of a run: on one node, unless a node takes fewer tasks or has fewer GPUs."""
        processes = work.processes
        most = self._whole(_TASKS) or self._gpus[1] or processes
        nodes = -(-processes // most)
        local = -(-processes // nodes)
        return Allotment(
            tasks=processes,
            nodes=nodes,
            tasks_per_node=local,
            cpus_per_task=self.task_cores(work.recipe),
            gpus_per_node=self._asked_gpus(work, local),
            lead_seconds=self._lead_seconds(),
        )

    def short_limit(self) -> str | None:
        """That the time limit leaves a run little, as a line for a user; None where it leaves enough."""
        limit, lead = self._limit_seconds(), self._lead_seconds()
        if limit is None or lead == _LEAD_SECONDS:
            return None
        return (
            f"the time limit of {limit} s is short: a run is asked to stop {lead} s before it, after {limit - lead} s "
            f"with its start; with at least {_LEAD_SHARE * _LEAD_SECONDS} s it has {_LEAD_SECONDS} s to stop"
        )

    def _limit_seconds(self) -> int | None:
        """None where there is none, or it is the partition's."""
        return limit_seconds(self.options.get("time") or os.environ.get("SBATCH_TIMELIMIT", ""))

    def _lead_seconds(self) -> int:
        limit = self._limit_seconds()
        return _LEAD_SECONDS if limit is None else max(min(_LEAD_SECONDS, limit // _LEAD_SHARE), 1)

    def flags(self, allotment: Allotment) -> Iterator[str]:
        """The user's options on sbatch's command line, for a run."""
        computed = {_TASKS: str(allotment.tasks_per_node), _GPUS: allotment.gpus_per_node}
        for name, value in self.options.items():
            if name == _GPUS and allotment.gpus_per_node is None:
                continue
            value = computed.get(name, value)
            yield f"--{name}" if value is None else f"--{name}={value}"

    def _asked_gpus(self, work: Work, local: int) -> str | None:
        kind, number = self._gpus
        device = work.recipe.execution.device
        if device == "cpu" or (number is None and (device != "cuda" or any(n in self.options for n in _OTHER_GPUS))):
            return None
        return f"{kind}{local}"

    @property
    def _gpus(self) -> tuple[str, int | None]:
        """("h100:" or "", GPUs of a node)."""
        kind, colon, number = (self.options.get(_GPUS) or "").rpartition(":")
        return kind + colon, int(number) if number else None

    def _whole(self, name: str) -> int | None:
        value = self.options.get(name)
        return None if value is None else int(value)


def limit_seconds(time: str) -> int | None:
    """A time of Slurm in seconds: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None where it is none, or no limit."""
    days, dash, rest = time.rpartition("-")
    numbers = rest.split(":")
    if time in ("", "0") or not all(number.isdecimal() for number in (*numbers, *([days] if dash else []))):
        return None
    values = [int(number) for number in numbers]
    if dash:
        hours, minutes, seconds = (*values, 0, 0)[:3]
    else:
        hours, minutes, seconds = {1: (0, *values, 0), 2: (0, *values)}.get(len(values), tuple(values[:3]))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def cluster_from(words: Sequence[str]) -> Cluster:
    """The options of ``--slurm NAME=VALUE`` or ``--slurm NAME``, each as sbatch calls it.

    Raises:
        UsageError: one that is no option, is given twice, has a value of another form, or is the study's to set.
    """
    options: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not re.fullmatch("[a-z][a-z0-9-]*", name) or (equals and not value.strip()) or not value.isprintable():
            raise UsageError(f"--slurm {word}: must be an option of sbatch as NAME=VALUE, such as partition=gpu")
        if name in _OURS:
            raise UsageError(f"--slurm {word}: is not a user's to set here: {_OURS[name]}")
        if name in options:
            raise UsageError(f"--slurm {word}: {name} is given twice; give it once")
        if name in _FORMS and not re.fullmatch(_FORMS[name][0], value):
            raise UsageError(f"--slurm {word}: must be {_FORMS[name][1]}")
        options[name] = value if equals else None
    tasks, gpus = options.get(_TASKS), (options.get(_GPUS) or "").rpartition(":")[2]
    if tasks and gpus and int(tasks) > int(gpus):
        raise UsageError(
            f"--slurm {_TASKS}={tasks}: more than {_GPUS}={options[_GPUS]}, and each process needs a GPU of its own; "
            f"give at most {_TASKS}={gpus}"
        )
    return Cluster(options)
