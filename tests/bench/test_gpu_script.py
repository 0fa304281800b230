"""benchmarks/gpu.sh: a part that fails stops no other; the whole of it, rehearsed on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import living_with, soon

ROOT = Path(__file__).parents[2]
PARTS = ["machine", "tests", "exact", "trace", "rates", "jpeg", "stalls"]

# In python's place: writes down what it was called with; one part fails, and the table ends with 1.
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$OUT/calls"
case "$*" in
    *"gpu rates"*) echo "no such device"; exit 3 ;;
    *"gpu table"*) echo "the table"; exit 1 ;;
esac
"""
# In the place of timeout: one part takes too long.
TIMEOUT = """#!/usr/bin/env bash
echo "$3" >>"$OUT/seconds"
case "$*" in *"gpu trace"*) exit 124 ;; esac
shift 3
exec "$@"
"""


def script(out, *arguments, **variables):
    """The script's exit code and its lines."""
    environment = {**os.environ, "OUT": str(out), **variables}
    ended = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


@pytest.mark.parametrize(("arguments", "slack"), [(["--device", "cpu"], 1), (["--tiny"], 10)])
def test_a_part_that_fails_or_hangs_stops_no_other_and_the_table_is_last(tmp_path, arguments, slack):
    out, programs = tmp_path / "out", tmp_path / "programs"
    programs.mkdir()
    for name, content in (("python", PYTHON), ("timeout", TIMEOUT)):
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "pydantic.whl").touch()
    code, lines, errors = script(out, *arguments, PY=str(programs / "python"), PATH=path, WHEELS=str(wheels))
    assert (code, errors) == (1, "")
    assert [line.split()[0] for line in lines] == [*PARTS, "the"]
    assert [line.split()[1] for line in lines[:-1]] == ["rc=0", "rc=0", "rc=0", "rc=124", "rc=3", "rc=0", "rc=0"]
    calls = [line for line in (out / "calls").read_text().splitlines() if line.startswith("-m ")]
    assert calls.pop(0).startswith("-m pip install -q --no-index ")
    given = " ".join(arguments)
    assert calls[0] == f"-m benchmarks.gpu machine --out {out} {given}"
    assert calls[-1] == f"-m benchmarks.gpu table --out {out} {given}"
    assert "-m pytest -q -m gpu" in calls[1]
    assert "tests/training/test_step_on_device.py" in calls[1]
    assert ("--numprocesses 4" in calls[1]) == (slack == 1)
    assert "== rates\nno such device\n" in (out / "parts.log").read_text()
    assert sum(int(line) for line in (out / "seconds").read_text().split()) <= 480 * slack


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_script_rehearsed_on_the_cpu(tmp_path):
    """A small net, few steps: every line that needs no GPU has run, and what holds on any device holds."""
    variables = {"PY": sys.executable, "OMP_NUM_THREADS": "1", "WHEELS": str(tmp_path / "none")}
    code, lines, errors = script(tmp_path, "--device", "cpu", "--tiny", **variables)
    log = (tmp_path / "parts.log").read_text()
    assert [line for line in lines if " rc=" in line and " rc=0 " not in line] == [], log
    assert not [line for line in lines if line.startswith("MISSED")], log
    assert code == 0, errors
    assert soon(lambda: not living_with("OUT", str(tmp_path))), "it has left processes behind"
    assert any(line.startswith("exact ") and line.endswith("EQUAL") for line in lines)
    documents = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in PARTS if part != "tests"}
    assert all(len(row["blocks"]) == 2 for row in documents["rates"]["rows"].values())
    assert all("ratio" in row for row in documents["rates"]["rows"].values())
    assert all("syncs" in row for row in documents["trace"]["rows"].values())
    assert documents["jpeg"]["beside"]["feed_images_per_second"] > 0
    assert len(documents["stalls"]["checkpoint_milliseconds"]) == 3
    assert len(list(tmp_path.iterdir())) <= 8  # as many files as a borrowed machine may give back
