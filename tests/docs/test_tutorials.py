"""Tutorials and the README: their code runs as it stands and prints what stands below it."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT, TUTORIALS, blocks
from support.worlds import in_processes

_HEX, _DECIMAL = re.compile(r"\b[0-9a-f]{16}\b"), re.compile(r"\b\d+\.\d+\b")


def with_names_for_digests(text: str) -> str:
    """Digests hang on the processor; which of them are equal does not."""
    names = {digest: f"digest {number}" for number, digest in enumerate(dict.fromkeys(_HEX.findall(text)))}
    return _HEX.sub(lambda match: names[match[0]], text)


def check_alike(printed: str, shown: str) -> None:
    """Word for word, and whole number for whole number; errors in percent as near as other processors bring them."""
    apart = [_DECIMAL.sub("D", re.sub(r" +", " ", with_names_for_digests(text.strip()))) for text in (printed, shown)]
    assert apart[0] == apart[1]
    for number, expected in zip(_DECIMAL.findall(printed), _DECIMAL.findall(shown), strict=True):
        assert abs(float(number) - float(expected)) <= 1 + 0.3 * float(expected), (number, expected)


PAGES = [*TUTORIALS, *(ROOT / "docs" / "do" / f"{name}.md" for name in ("find-the-critical-minibatch", "plan-a-run"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_what_it_shows(page, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = ""
    for language, text in blocks(page):
        if language == "python":
            (tmp_path / text.split("\n", 1)[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        elif language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", text]
            environment = {**os.environ, "PATH": path}
            printed = subprocess.run(
                command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        elif language == "text":
            check_alike(printed, text)
        else:  # what takes long is shown as it was measured
            assert page.parent.name == "do"
    assert any(block.language == "text" for block in blocks(page))


def printed_by(rank: int, code: str, folder: Path) -> str:
    """What Python code prints, run in a folder."""
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_the_code_of_the_readme_trains_ones_own_net(tmp_path):
    (code,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        printed = in_processes(processes, printed_by, code, folder)
        assert len(set(printed)) == 1
        error, digest = printed[0].split()
        assert float(error) < 20  # half of the points are of either class
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
        assert json.loads((folder / "runs" / "own" / "result.json").read_text())["processes"] == processes


def test_outputs_are_compared_in_what_is_stable():
    check_alike("a 0123456789abcdef b 0123456789abcdef 1.5 %", "a  fedcba9876543210 b fedcba9876543210 1.9 %")
    for other in ("a 0123456789abcdef b 0000000000000000 1.5 %", "a 0123456789abcdef b 0123456789abcdef 9.5 %"):
        with pytest.raises(AssertionError):
            check_alike(other, "a fedcba9876543210 b fedcba9876543210 1.5 %")
