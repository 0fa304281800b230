"""Progress of what no step ends: a line after some seconds, nothing where it was short, or nobody is told."""

import re
import time
from types import SimpleNamespace

import pytest
from support.processes import soon

from batchscale.training import progress
from batchscale.training.progress import Progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_WAIT_SECONDS", 0.05)


def test_what_takes_long_is_told_while_it_lasts(quick, capsys):
    told = ""

    def said(line):
        nonlocal told
        told += capsys.readouterr().err
        return re.search(rf"^evaluating 27 images: {line}$", told, re.MULTILINE)

    with Progress(10, 0, quiet=False).during("evaluating 27 images") as tell:
        assert soon(lambda: said(r"\d+ s so far"))
        tell(0.25)
        assert soon(lambda: said(r"\d+ s so far, 25 % done, \d+ s left"))
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # it has ended


def test_what_is_short_is_not_told(capsys):
    with Progress(10, 0, quiet=False).during("evaluating 27 images") as tell:
        tell(0.5)
    assert capsys.readouterr().err == ""


def test_the_time_left_is_by_the_share_that_is_done(quick, capsys, monkeypatch):
    told = Progress(10, 0, quiet=False)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=iter((0.0, 12.0)).__next__))
    waits = iter((False, True))
    told._tell("evaluating 27 images", [0.0, 0.25], SimpleNamespace(wait=lambda seconds: next(waits)))
    assert capsys.readouterr().err == "evaluating 27 images: 12 s so far, 25 % done, 36 s left\n"


def test_other_ranks_and_quiet_runs_say_nothing(quick, capsys):
    with Progress(10, 0, quiet=True).during("evaluating 27 images"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""
