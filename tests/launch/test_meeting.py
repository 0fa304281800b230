"""W processes of an outside launcher: what each of them says when one is missing, mistaken or lost."""

import contextlib
import os
import re
import signal
import socket
import threading

import pytest
from support.launching import SMALL, Started
from support.worlds import free_port

slow = pytest.mark.slow
FEW = 8  # by so much may those who are there differ in loading torch, on a busy machine
FEW_SECONDS = (f"execution.startup_seconds={FEW}",)
UNKNOWN = "recipe entry 'epoks': unknown; the nearest known entry is epochs"
LEFT_OVER = "if they are left over in this shell: unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT"


def tasks(tmp_path, size, ranks, *words, port=None, **more):
    """So many of W tasks, each with the words of all and those of its own, by rank."""
    port = port or free_port()
    return {
        rank: Started(
            "train", *SMALL, *words, *more.get(f"rank_{rank}", ()), "--out", str(tmp_path / "run"),
            environment={
                "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo",
            },
        )
        for rank in ranks
    }  # fmt: skip


def said(started):
    """Rank -> (exit code, its lines on standard error)."""
    return {rank: (code, err.splitlines()) for rank, (code, _, err) in ((r, s.end()) for r, s in started.items())}


def ours(ends):
    """The lines of batchscale, of all ranks together."""
    return [line for _, lines in ends.values() for line in lines if line.startswith("batchscale: ")]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"rank_1": ("epoks=1",)}, f"batchscale: rank 1 (host {socket.gethostname()}): {UNKNOWN}"),
        pytest.param({f"rank_{r}": ("epoks=1",) for r in range(3)}, f"batchscale: {UNKNOWN}", marks=slow),
        pytest.param({"rank_0": ("epoks=1",)}, f"batchscale: {UNKNOWN}", marks=slow),
    ],
)
def test_a_mistake_of_any_task_is_said_once_and_ends_all(tmp_path, more, line):
    ends = said(tasks(tmp_path, 3, range(3), **more))
    assert {rank: code for rank, (code, _) in ends.items()} == dict.fromkeys(range(3), 2)
    assert [one for _, lines in ends.values() for one in lines] == [line]


def test_who_did_not_arrive_is_named(tmp_path):
    ends = said(tasks(tmp_path, 4, (0, 2), *FEW_SECONDS))
    assert ends == {0: (1, [f"batchscale: start of 4 processes: rank 1, 3 did not arrive in {FEW} s"]), 2: (1, [])}


@slow
def test_one_that_meets_nobody_says_where_and_what_may_be_left_over(tmp_path):
    alone = ours(said(tasks(tmp_path, 2, [0], *FEW_SECONDS)))
    assert len(alone) == 1
    assert f"start of 2 processes: rank 1 did not arrive in {FEW} s; as told by RANK=0" in alone[0]
    assert alone[0].endswith(LEFT_OVER)
    port = free_port()
    ends = said(tasks(tmp_path, 3, (1, 2), *FEW_SECONDS, port=port))
    (line,) = (line for _, lines in ends.values() for line in lines)
    assert (
        f"nothing answers at 127.0.0.1:{port} in {FEW} s (Connection refused): rank 0 has not started there, or cannot "
        "be reached; as told by RANK=1" in line
    )
    assert line.endswith(LEFT_OVER)


@slow
@pytest.mark.parametrize("answers", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_of_another_program_is_told_from_rank_0s(tmp_path, answers):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(answers)
                    connections.append(connection)

        connections = []
        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        ends = said(tasks(tmp_path, 2, range(2), port=port))
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()
    assert f"another program has port {port} of this host" in ends[0][1][-1]
    assert ends[1][0] == 1  # long before startup_seconds


@slow
def test_where_rank_0_is_killed_one_of_the_others_says_so(tmp_path):
    out = tmp_path / "run"
    started = tasks(tmp_path, 3, range(3), "epochs=5000")
    started[0].wait_for_step(out, 2)
    os.kill(started[0].process.pid, signal.SIGKILL)
    ends = said(started)
    assert [code for code, _ in ends.values()] == [-signal.SIGKILL, 1, 1]
    (line,) = ours(ends)
    assert re.search(r"rank 0 .*(died|failed, as rank 2 found)", line)
