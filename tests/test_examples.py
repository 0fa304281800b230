"""The examples run as they stand, and say the same on other process counts."""

import sys
from pathlib import Path

import pytest
from launching import run
from worlds import free_port

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
def test_ones_own_loop_is_exact_on_any_number_of_processes():
    script = str(EXAMPLES / "own_loop.py")
    torchrun = ("--master-addr=127.0.0.1", f"--master-port={free_port()}")
    environment = {"GLOO_SOCKET_IFNAME": "lo"}
    said = []
    for processes in ("1", "3"):
        arguments = (f"--nproc-per-node={processes}", *torchrun, script)
        code, out, err = run(*arguments, module="torch.distributed.run", environment=environment)
        assert code == 0, err
        said.append(out)
    assert said[0] == said[1]
    assert float(said[0].split()[1]) < 5
    code_lines = [x for x in Path(script).read_text().split('"""', 2)[2].splitlines() if x.strip()]
    assert len(code_lines) <= 40


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
def test_the_hook_trains_the_same_as_ddp_by_any_algorithm():
    torchrun = ("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}")
    said = {}
    for name in ("auto", "builtin", "halving_doubling"):
        code, out, err = run(
            *torchrun, str(EXAMPLES / "ddp_hook.py"), name,
            module="torch.distributed.run", environment={"GLOO_SOCKET_IFNAME": "lo"},
        )  # fmt: skip
        assert code == 0, err
        assert out.startswith("all-reduce: ")
        said[name] = float(out.split()[-1])
    assert said["auto"] == pytest.approx(said["builtin"], rel=1e-6)
    assert said["halving_doubling"] == pytest.approx(said["builtin"], rel=1e-6)
