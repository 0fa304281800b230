"""The loops of the page on the noise scale run as they stand."""

import contextlib
import io

from support.pages import ROOT, blocks
from support.worlds import in_processes

PYTHON = [block.text for block in blocks(ROOT / "docs/do/measure-the-noise-scale.md") if block.language == "python"]


def printed_by(rank, code):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_accumulation_and_ddp_measure():
    accumulate, with_ddp = PYTHON
    assert "examples, " in printed_by(0, accumulate)
    assert in_processes(2, printed_by, with_ddp) == ["True\n"] * 2


def test_the_meter_is_three_lines_of_a_loop():
    for code in PYTHON:
        lines = [line for line in code.splitlines() if "noise." in line or "NoiseScale" in line]
        assert len(lines) == 4  # and one that prints
