"""A signal to stop that comes while the command is still loading ends it with a line and its exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LOADING = "import os, time\nopen(os.environ['LOADED'], 'w').close()\nwhile True: time.sleep(0.01)\n"
"""In torch's place: a library that takes long, in short calls.

Python runs a handler between two calls only: a signal just before one long sleep begins would wait for its end.
"""


def _heard():
    """A shell's background jobs, and what nohup begins, ignore signals; the command is to hear them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def loading(tmp_path, **environment):
    """A run whose torch is still loading."""
    (tmp_path / "torch.py").write_text(LOADING)
    begun = tmp_path / "loaded"
    command = subprocess.Popen(
        [sys.executable, "-m", "batchscale", "train", "digits-cnn", "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "LOADED": str(begun), **environment},
        stderr=subprocess.PIPE, text=True, preexec_fn=_heard,
    )  # fmt: skip
    while not begun.exists():
        assert command.poll() is None
    return command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_it_says_that_nothing_had_begun(tmp_path, number):
    command = loading(tmp_path)
    command.send_signal(number)
    _, err = command.communicate()
    assert (command.returncode, err) == (
        128 + number,
        f"batchscale: stopped by {number.name} before the run had begun\n",
    )
    assert not Path(tmp_path / "run").exists()


def test_rank_0_alone_says_it(tmp_path):
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    command = loading(tmp_path, **told)
    command.send_signal(signal.SIGUSR1)
    _, err = command.communicate()
    assert (command.returncode, err) == (138, "")


def test_ctrl_c_ends_it_at_once(tmp_path):
    command = loading(tmp_path)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate()
    assert (command.returncode, err) == (130, "")
