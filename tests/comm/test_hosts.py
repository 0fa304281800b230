"""Several hosts on one machine: the same bits as one host, through torchrun and every way of reducing between hosts."""

import json
import time
import uuid

import pytest
from support.hosts import hosts
from support.launching import SMALL, Started
from support.worlds import free_port, trained

EXACT = (*SMALL, "numerics.exact=true")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The result of the run on one process."""
    return trained(0, EXACT[0], EXACT[1:], None, tmp_path_factory.mktemp("alone") / "run")


def train_on(machines, processes, out, *overrides):
    """The result of one run through torchrun, one agent a host."""
    port, run_id = free_port(), uuid.uuid4().hex
    agents = []
    for host, local in zip(machines, processes, strict=True):
        torchrun = (
            f"--nnodes={len(machines)}", f"--nproc-per-node={local}", "--rdzv-backend=c10d", f"--rdzv-id={run_id}",
            f"--rdzv-endpoint={machines[0].address}:{port}", f"--local-addr={host.address}",
            f"--rdzv-conf=is_host={str(host is machines[0]).lower()}",
            "-m", "batchscale", "train", *EXACT, *overrides, "--out", str(out), "--json",
        )  # fmt: skip
        environment = {"GLOO_SOCKET_IFNAME": host.interface}
        agents.append(Started(*torchrun, module="torch.distributed.run", environment=environment, prefix=host.prefix))
        time.sleep(0.5)
    ended = [agent.end() for agent in agents]
    assert [code for code, _, _ in ended] == [0] * len(machines), "\n".join(err for *_, err in ended)
    return json.loads("".join(out for _, out, _ in ended))


@pytest.mark.parametrize(
    ("processes", "overrides", "used"),
    [
        ((2, 1), ("execution.aggregation.algorithm=three_phase", "execution.aggregation.between=ring"), "three_phase"),
        pytest.param((2, 2), ("execution.aggregation.algorithm=three_phase",), "three_phase", marks=pytest.mark.slow),
        pytest.param(
            (1, 1, 1), ("execution.aggregation.algorithm=binary_blocks",), "binary_blocks", marks=pytest.mark.slow
        ),
        pytest.param((2, 2), (), None, marks=pytest.mark.slow),
    ],
)
def test_any_hosts_reach_the_bits_of_one(tmp_path, expected, processes, overrides, used):
    out = tmp_path / "run"
    with hosts(len(processes)) as machines:
        reached = train_on(machines, processes, out, *overrides)
    assert reached["weights_sha256"] == expected["weights_sha256"]
    assert reached["processes"] == sum(processes)
    decided = json.loads((out / "environment.json").read_text())["decided"]["algorithm"]
    assert decided["machine"]["processes_per_host"] == list(processes)
    assert used is None or decided["limits"] == [[0, used]]


@pytest.mark.slow
def test_hosts_whose_names_lead_to_themselves_alone_are_told_the_variable_to_set(tmp_path):
    port = str(free_port())
    words = (
        "train",
        "digits-cnn",
        "execution.timeout_seconds=20",
        "execution.startup_seconds=20",
        "--out",
        str(tmp_path / "run"),
    )
    with hosts(2, networks=True) as machines:  # none resolves this machine's name to an address on the bridge
        variables = {"WORLD_SIZE": "2", "MASTER_ADDR": machines[0].address, "MASTER_PORT": port}
        processes = [
            Started(*words, environment={**variables, "RANK": str(rank)}, prefix=host.prefix)
            for rank, host in enumerate(machines)
        ]
        (code, _, err), (other, _, _) = [process.end() for process in processes]
    assert (code, other) == (1, 1)
    (line,) = [line for line in err.splitlines() if line.startswith("batchscale:")]
    assert "connectFullMesh" in line
    assert "set GLOO_SOCKET_IFNAME, and NCCL_SOCKET_IFNAME, to the interface between the hosts" in line
    assert "has lo, eth0)" in line
    assert not (tmp_path / "run").exists()
