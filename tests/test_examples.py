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
