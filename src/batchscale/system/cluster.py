"""What a cluster's launcher says of the task that this process is: Slurm's srun, Open MPI's mpirun, PMI.

Slurm: srun(1), "output environment variables". A batch script, and a shell of salloc, find SLURM_NTASKS and
SLURM_PROCID, too; only a step has SLURM_STEP_*, and only there does one process run for each task.
Open MPI: OMPI_COMM_WORLD_* (mpirun(1)). PMI: PMI_RANK and PMI_SIZE of MPICH's and Intel MPI's mpirun, which say
the place on the host by MPI_LOCALRANKID and MPI_LOCALNRANKS.

A launcher's variables count where they give a size. Of 1 they make a plain process, whatever the others hold; above,
every one that is needed must be there and a number: with a part of them alone nobody would miss this task.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from batchscale.errors import UsageError
from batchscale.system.slurm import ask

_FIRST_PORT, _PORTS = 20_000, 9_000  # below what systems give to outgoing connections (Linux: from 32768 on)
_STEPS = 31  # ports a job, so that jobs begun one after the other, and their steps, have different ones
_TORCHS_PORT = 29_500  # torchrun's own
_SCONTROL_SECONDS = 10


@dataclass(frozen=True)
class ClusterTask:
    """One of the tasks that a launcher has started together.

    Args:
        names: the variables that hold rank and size.
        rank, size: among all.
        local_rank, local_size: among those of its host; size 0 where nothing says it.
        node: the number of its host; None where nothing says it.
        job: a number that other jobs and steps do not have; None where nothing says one.
        nodes: Slurm's list of the hosts' names, else "".
        cores: of this task by the cluster's count, whether it is bound to them or not; None where nothing says it.
    """

    names: tuple[str, str]
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int | None = None
    job: int | None = None
    nodes: str = ""
    cores: int | None = None

    @property
    def starter(self) -> str:
        """The command that starts N such tasks, without N."""
        return "srun -n" if self.names[0].startswith("SLURM") else "mpirun -n"

    @property
    def port(self) -> int:
        """Where rank 0 listens, unless MASTER_PORT says another one."""
        return _TORCHS_PORT if self.job is None else _FIRST_PORT + self.job % _PORTS

    def address(self) -> str | None:
        """Of rank 0's host; None where the launcher does not say it."""
        if self.local_size == self.size:
            return "127.0.0.1"
        if not self.nodes or (self.rank == 0 and self.node != 0):  # -m arbitrary: rank 0 is not on the first node
            return None
        return _slurm_address(first_node(self.nodes))


def cluster_task(environment: Mapping[str, str]) -> ClusterTask | None:
    """The task that a cluster's launcher has made of this process; None where none has.

    The innermost launcher goes first: mpirun in a job of Slurm starts its helpers as a step.

    Args:
        environment: of this process.

    Raises:
        UsageError: variables of one of several tasks that are incomplete, or no numbers; names the one.
    """
    if open_mpi := _open_mpi_task(environment):
        return open_mpi
    slurm, pmi = _slurm_task(environment), _pmi_task(environment)
    if slurm and pmi and (slurm.rank, slurm.size) != (pmi.rank, pmi.size):
        slurm = None  # MPICH's mpirun in a job of Slurm; with srun --mpi=pmi2 both say the same
    return slurm or pmi


def first_node(nodes: str) -> str:
    """The first name of Slurm's list: gpu[007-009,12],login -> gpu007."""
    name = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", name.group() if name else "")


def _numbers(environment: Mapping[str, str], *names: str) -> list[int] | None:
    """The values of variables; None where one is missing, or no whole number."""
    words = [environment.get(name, "") for name in names]
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else None


def _task_numbers(environment: Mapping[str, str], rank: str, size: str, *places: str) -> list[int] | None:
    """Rank, size and places on the host; None where no size is given, or one of 1 with a part of the others alone.

    Raises:
        UsageError: as ``cluster_task``.
    """
    names = (rank, size, *places)
    numbers, tasks = _numbers(environment, *names), environment.get(size)
    if not tasks or tasks == "1" or (numbers and numbers[0] < numbers[1]):
        return numbers
    offender = next((name for name in (size, *names) if not environment.get(name, "").isdecimal()), rank)
    wrong = f"{offender}={environment[offender]}: " if environment.get(offender) else f"{offender}: not set, but "
    below = f" below {size}={tasks}" if offender == rank else ""
    raise UsageError(
        f"{wrong}must be a whole number{below}, as each task of a launcher has them all: {', '.join(names)}; if they "
        f"are left over in this shell: unset {' '.join(name for name in names if name in environment)}"
    )


def _slurm_task(environment: Mapping[str, str]) -> ClusterTask | None:
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    tasks = environment.get(names[1], "")
    # A batch script that a step has submitted inherits the step's variables; those of the job are its own.
    if tasks.isdecimal() and environment.get("SLURM_NTASKS", tasks) != tasks:
        return None
    numbers = _task_numbers(environment, *names, "SLURM_LOCALID", "SLURM_NODEID")
    if numbers is None:
        return None
    rank, size, local_rank, node = numbers
    counts = _expanded(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local_size = counts[node] if node < len(counts) else 0
    job_and_step = _numbers(environment, "SLURM_JOB_ID", "SLURM_STEP_ID")
    job = None if job_and_step is None else job_and_step[0] * _STEPS + job_and_step[1]
    hosts, cores = environment.get("SLURM_STEP_NODELIST", ""), _cores(environment, local_size)
    return ClusterTask(names, rank, size, local_rank, local_size, node, job, hosts, cores)


def _cores(environment: Mapping[str, str], local_size: int) -> int | None:
    """What Slurm gives each task: as asked, and no more than a task's share of what the step has on this node.

    Both, as SLURM_CPUS_PER_TASK may be a batch script's, which since Slurm 22.05 its steps do not take over.
    """
    asked, on_node = (_numbers(environment, name) or [] for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    counts = [*asked, *(cores // local_size for cores in on_node if local_size)]
    return max(min(counts), 1) if counts else None


def _expanded(counts: str) -> list[int]:
    """Slurm's tasks a node: 2(x3),1 -> [2, 2, 2, 1]."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(count) for count, repeats in groups for _ in range(int(repeats or 1))]


def _open_mpi_task(environment: Mapping[str, str]) -> ClusterTask | None:
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    numbers = _task_numbers(environment, *names, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    if numbers is None:
        return None
    rank, size, local_rank, local_size = numbers
    job = environment.get("PMIX_NAMESPACE")
    return ClusterTask(names, rank, size, local_rank, local_size, job=zlib.crc32(job.encode()) if job else None)


def _pmi_task(environment: Mapping[str, str]) -> ClusterTask | None:
    names, places = ("PMI_RANK", "PMI_SIZE"), ("MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    numbers = _task_numbers(environment, *names, *(name for name in places if name in environment))
    local_rank, local_size = _numbers(environment, *places) or (0, 0)
    return None if numbers is None else ClusterTask(names, numbers[0], numbers[1], local_rank, local_size)


def _slurm_address(node: str) -> str:
    """What Slurm itself reaches a node by; the node's name where it does not answer."""
    answer = ask("scontrol", "show", "node", node, seconds=_SCONTROL_SECONDS)
    address = re.search(r"\bNodeAddr=(\S+)", answer.stdout if answer else "")
    return address.group(1) if address else node
