"""The examples run as they stand, and say the same on other process counts."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest
from support.worlds import in_processes

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def said_by(rank, *words):
    """What a script prints in a process of torchrun's environment."""
    sys.argv = [str(EXAMPLES / words[0]), *words[1:]]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(sys.argv[0], run_name="__main__")
    return printed.getvalue()


def run(processes, *words):
    """What the first process prints; the others print nothing."""
    first, *others = in_processes(processes, said_by, *words)
    assert set(others) <= {""}
    return first


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
def test_ones_own_loop_is_exact_on_any_number_of_processes():
    said = [run(processes, "own_loop.py") for processes in (1, 3)]
    assert said[0] == said[1]
    assert float(said[0].split()[1]) < 5
    code = (EXAMPLES / "own_loop.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
def test_the_hook_trains_the_same_as_ddp_by_any_algorithm():
    said = {}
    for name in ("auto", "builtin", "halving_doubling"):
        printed = run(2, "ddp_hook.py", name)
        assert printed.startswith("all-reduce: ")
        said[name] = float(printed.split()[-1])
    assert said["auto"] == pytest.approx(said["builtin"], rel=1e-6)
    assert said["halving_doubling"] == pytest.approx(said["builtin"], rel=1e-6)
