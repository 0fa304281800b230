"""What clusters' launchers say, in words of torchrun: which variables make one run, where it meets, what is no step."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscale.cli import main
from batchscale.comm import World
from batchscale.errors import ProcessError, RecipeError, UsageError
from batchscale.placement import place_workers
from batchscale.recipe import load_recipe
from batchscale.run.job import Job
from batchscale.system import cluster, launcher
from batchscale.system.cluster import cluster_task, first_node

STEP = {
    "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "1", "SLURM_PROCID": "5", "SLURM_NTASKS": "7", "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_STEP_NODELIST": "gpu[007-010]",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1",
    "MASTER_ADDR": "head", "MASTER_PORT": "7", "TORCHELASTIC_RUN_ID": "job",
}  # fmt: skip


@pytest.fixture
def told(monkeypatch):
    """The environment of a process in which a launcher has set these variables, after it was looked at; its W."""
    monkeypatch.setattr(cluster, "_slurm_address", lambda node: f"address of {node}")

    def told(variables):
        monkeypatch.setattr(os, "environ", {"PATH": os.environ.get("PATH", ""), **variables})
        rank, size = launcher.world_told()
        return {**os.environ, "rank": rank, "size": size}

    return told


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


@pytest.mark.parametrize(
    ("variables", "filled"),
    [
        (STEP, ("5", "7", "1", "2", "2", "address of gpu007", str(20_000 + 12 * 31 + 1))),
        # mpirun in a job of Slurm: its helper on this node is a task of Slurm, and no task of the run
        ({**STEP, **OPEN_MPI}, ("1", "2", "1", "2", None, "127.0.0.1", "29500")),
        ({**STEP, **HYDRA, "MASTER_ADDR": "a"}, ("2", "4", "0", "2", None, "a", "29500")),
        # srun --mpi=pmi2: both say the same
        ({**STEP, "PMI_RANK": "5", "PMI_SIZE": "7"}, ("5", "7", "1", "2", "2", "address of gpu007", "20373")),
        ({**HYDRA, "PMI_SIZE": "2", "PMI_RANK": "0"}, ("0", "2", "0", "2", None, "127.0.0.1", "29500")),
        # a user's own go first, and a half of torchrun's that agrees is made whole
        ({**STEP, "MASTER_ADDR": "mine", "MASTER_PORT": "9"}, ("5", "7", "1", "2", "2", "mine", "9")),
        ({**STEP, "WORLD_SIZE": "7"}, ("5", "7", "1", "2", "2", "address of gpu007", "20373")),
        # one host
        (
            {**STEP, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_NODEID": "0",
             "SLURM_STEP_TASKS_PER_NODE": "2"},
            ("1", "2", "1", "2", "0", "127.0.0.1", "20373"),
        ),
        # torchrun below srun, one agent a node
        ({**STEP, **TORCHRUN}, ("3", "8", "1", "2", "1", "head", "7")),
    ],
)  # fmt: skip
def test_one_run_of_all_tasks(told, variables, filled):
    environment = told(variables)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    assert tuple(environment.get(name) for name in names) == filled
    assert (environment["rank"], environment["size"]) == (int(filled[0]), int(filled[1]))
    assert launcher.is_worker()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {**STEP, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun -n 1
        without(STEP, "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID"),  # the body of a batch script
        without(STEP, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),  # salloc
        {**STEP, "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script that a step has submitted
        {**STEP, **OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},  # mpirun -n 1 in a job
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"PMIX_RANK": "3"},  # says no W
        {"PMI_RANK": "3"},
        {"PMI_RANK": "x", "PMI_SIZE": "1"},
    ],
)
def test_what_starts_one_task_is_a_plain_run(told, variables):
    assert told(variables) == {"PATH": os.environ["PATH"], **variables, "rank": 0, "size": 1}
    assert not launcher.is_worker()
    launcher.check_alone("study")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (HYDRA, "PMI_RANK=2, PMI_SIZE=4: set, .* one of 4 on several hosts, .*: set MASTER_ADDR"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "set MASTER_ADDR"),
        # srun -m arbitrary
        ({**STEP, "SLURM_PROCID": "0"}, "SLURM_PROCID=0, SLURM_STEP_NUM_TASKS=7: set, .*: set MASTER_ADDR"),
        ({**STEP, "WORLD_SIZE": "8"}, "WORLD_SIZE=8: set, but not RANK"),
        ({**STEP, "RANK": "0", "WORLD_SIZE": "7"}, "RANK=0, WORLD_SIZE=7: set, but not MASTER_ADDR, MASTER_PORT"),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2"},
            r"^PMI_RANK=1, PMI_SIZE=2: set, .* as one of 2, but .* of its host \(127.0.0.1 where all share one\)",
        ),
        # a part, or no numbers: nobody would miss this task
        (
            {"PMI_RANK": "x", "PMI_SIZE": "2"},
            "^PMI_RANK=x: must be a whole number below PMI_SIZE=2, .*: unset PMI_RANK",
        ),
        ({"PMI_RANK": "-1", "PMI_SIZE": "2"}, "^PMI_RANK=-1: must be"),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "^PMI_RANK=2: must be a whole number below PMI_SIZE=2"),
        ({"PMI_SIZE": "2"}, "^PMI_RANK: not set, but must be"),
        ({**HYDRA, "MPI_LOCALRANKID": "x"}, "^MPI_LOCALRANKID=x: must be a whole number"),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_RANK"), "^OMPI_COMM_WORLD_LOCAL_RANK: not set, but"),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "two"}, "^OMPI_COMM_WORLD_SIZE=two: must be a whole number, "),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "x"}, "^SLURM_PROCID=x: .* below SLURM_STEP_NUM_TASKS=4"),
        (without(STEP, "SLURM_NODEID"), "^SLURM_NODEID: not set, but"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "70000"},
            "^MASTER_PORT=70000: must be a ",
        ),
    ],
)
def test_what_two_readings_allow_is_refused(told, variables, said):
    with pytest.raises(UsageError, match=said):
        told(variables)


def test_who_starts_processes_itself_is_refused_by_one_task_in_the_words_of_its_launcher(told, monkeypatch):
    monkeypatch.setattr(os, "environ", {**STEP, "SLURM_PROCID": "0", "SLURM_NODEID": "0"})
    said = "SLURM_PROCID=0, SLURM_STEP_NUM_TASKS=7: set, .* but study starts its own: .*: unset SLURM_PROCID SLURM_STEP"
    with pytest.raises(UsageError, match=said):
        launcher.check_alone("study")
    assert "RANK" not in os.environ
    monkeypatch.setattr(os, "environ", dict(STEP))
    with pytest.raises(SystemExit) as leaving:
        launcher.check_alone("study")
    assert leaving.value.code == 2


def test_a_users_own_go_before_a_clusters_that_are_no_numbers(told):
    own = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert (told({**own, "PMI_RANK": "x", "PMI_SIZE": "4"})["rank"], launcher.described()) == (
        1, "RANK=1, WORLD_SIZE=2, MASTER_ADDR=a, MASTER_PORT=1",
    )  # fmt: skip


def test_a_refusal_lists_what_was_set_and_not_what_was_filled_in(told):
    told({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "0", "MASTER_PORT": "9"})
    said = str(launcher.starts_its_own("--processes=2"))
    assert said.startswith("OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2, MASTER_PORT=9: set, so"), said
    assert "MASTER_ADDR=127.0.0.1, MASTER_PORT=9" in launcher.described()  # where it is to meet the others


@pytest.mark.parametrize("command", [["recipes"], ["report", "a"], ["compare", "a", "b"], ["data", "check", "digits"]])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_work_of_one_process_is_refused_to_several_tasks(monkeypatch, capsys, command, rank):
    for name, value in {**OPEN_MPI, "OMPI_COMM_WORLD_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    try:
        code = main(command)
    except SystemExit as leaving:
        code = leaving.code
    said = f"but {command[0]} is the work of one: start one task (mpirun -n 1); if they are left over in this shell"
    output = capsys.readouterr()
    assert (code, output.out, said in output.err) == (2, "", rank == 0), output.err
    assert output.err.count("\n") == 1 - rank


def test_variables_that_are_no_tasks_do_not_keep_a_command_of_one_process(monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "x")
    assert main(["recipes"]) == 0


@pytest.mark.parametrize(
    ("variables", "processes", "way"),
    [
        ({**STEP, "MASTER_ADDR": "a"}, "7 tasks (SLURM_STEP_NUM_TASKS=7)", "start at most 4 tasks, srun -n 4,"),
        (
            {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "7", "MASTER_ADDR": "a"},
            "7 tasks (OMPI_COMM_WORLD_SIZE=7)", "start at most 4 tasks, mpirun -n 4,",
        ),
        ({**TORCHRUN, "WORLD_SIZE": "7"}, "7 processes (WORLD_SIZE=7)", "start at most 4 processes"),
        ({**TORCHRUN, "WORLD_SIZE": "7", launcher.LAUNCHER: "1"}, "--processes=7", "use --processes 4"),
        ({}, "--processes=7", "use --processes 4"),
    ],
)  # fmt: skip
def test_too_many_processes_are_told_in_the_words_of_what_has_started_them(told, variables, processes, way):
    told(variables)
    with pytest.raises(RecipeError) as error:
        place_workers(4, 7)
    assert launcher.in_its_words(str(error.value)) == (
        f"{processes}: must not exceed minibatch.workers=4 (a process without a worker has nothing to do); "
        f"{way} or raise minibatch.workers"
    )


@pytest.mark.parametrize(
    ("variables", "command", "way"),
    [
        ({}, "batchscale", "go on with: batchscale"),
        ({**STEP, "MASTER_ADDR": "a"}, "batchscale", "start it again by the same launcher with: batchscale"),
        ({**STEP, **TORCHRUN}, "torchrun", "start it again by the same launcher with: torchrun"),
        (TORCHRUN, "torchrun", "go on with: torchrun"),
        (TORCHRUN, "batchscale", "start it again by the same launcher with: batchscale"),
        ({**TORCHRUN, launcher.LAUNCHER: "1"}, "batchscale", "go on with: batchscale"),
    ],
)
def test_a_way_on_says_when_the_launcher_is_missing_in_it(told, variables, command, way):
    told(variables)
    job = Job("digits-cnn", load_recipe("digits-cnn"), Path("d"), command=(command, "train", "digits-cnn"))
    assert job.way_on == f"{way} train digits-cnn --out d --resume=auto"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"), ("n[1-2]", "n1"), ("gpu-a[003-010,020],login", "gpu-a003"), ("b[12,1],a", "b12"), ("a,b", "a"),
        ("rack[1-2]n[03-04]x", "rack1n03x"), ("n1.domain,n2", "n1.domain"), ("", ""),
    ],
)  # fmt: skip
def test_the_first_name_of_slurms_list(nodes, first):
    assert first_node(nodes) == first


def test_a_node_is_reached_as_slurm_reaches_it_else_by_its_name(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\necho "NodeName=$3 Arch=x86_64"\necho "   NodeAddr=10.0.0.$# NodeHostName=b"\n')
    program.chmod(0o755)
    task = cluster_task({**STEP, "SLURM_NODEID": "1"})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert task.address() == "10.0.0.3"
    for script in ("echo nothing; exit 1", "exec sleep 60"):
        monkeypatch.setattr(cluster, "_SCONTROL_SECONDS", 0.5)
        program.write_text(f"#!/bin/sh\n{script}\n")
        assert task.address() == "gpu007"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert task.address() == "gpu007"


def test_jobs_and_steps_on_one_node_have_ports_of_their_own():
    ids = [(job, step) for job in range(1_000, 1_200) for step in range(31)]
    ports = {cluster_task({**STEP, "SLURM_JOB_ID": str(j), "SLURM_STEP_ID": str(s)}).port for j, s in ids}
    assert len(ports) == len(ids)
    assert 20_000 <= min(ports) <= max(ports) < 29_000  # free of torchrun's, and of those that Linux gives by itself


@pytest.fixture
def meeting(monkeypatch):
    """Variables of two tasks on this host, one of which this is."""
    before = dict(os.environ)

    def meeting(rank, address, port):
        step = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
        more = {"SLURM_PROCID": str(rank), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
        monkeypatch.setattr(os, "environ", {**before, **STEP, **step, **more})

    return meeting


def test_an_address_that_does_not_resolve_is_told_at_once(meeting):
    meeting(1, "nowhere.invalid", 1)
    with pytest.raises(
        UsageError, match=r"^MASTER_ADDR=nowhere\.invalid: does not resolve on .*; set it to an address"
    ):
        World.connect("cpu", 600.0)


def test_a_port_that_another_program_has_is_told_with_the_variable_and_keeps_nobody(meeting):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        meeting(0, "127.0.0.1", port)
        with pytest.raises(ProcessError, match=rf"another program has port {port} of this host: set MASTER_PORT"):
            World.connect("cpu", 600.0)
        meeting(1, "127.0.0.1", port)
        with pytest.raises(ProcessError, match=r"what listens at .* did not answer as the store of rank 0"):
            World.connect("cpu", 1.0)


_TASK = """
import os, pathlib, sys, time
from batchscale.cli import main, train

def work(options, ours):
    shell, file = os.getppid(), pathlib.Path(sys.argv[1])
    file.write_text("began")
    while os.getppid() == shell:
        time.sleep(0.01)
    file.write_text("ended")
    return 0

train._worker = work
sys.exit(main(["train", "digits-cnn"]))
"""


def test_a_task_outlives_the_shell_that_began_it(tmp_path):
    """A cluster ends its tasks itself; dying with the parent would end one whose shell has left."""
    file = tmp_path / "word"
    variables = {**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    line = f'{sys.executable} -c "$0" {file} & until [ -s {file} ]; do sleep 0.05; done'
    subprocess.run(["bash", "-c", line, _TASK], env={**os.environ, **variables}, check=True, timeout=300)
    deadline = time.monotonic() + 60
    while file.read_text() != "ended" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert file.read_text() == "ended"
