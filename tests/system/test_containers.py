"""Runs and pages in a container: read-only but for one folder, no user's name, no HOME, little or no /dev/shm."""

from __future__ import annotations

import json
import os

import pytest
from support.container import USER, inside, lacking
from support.worlds import trained

SMALL = ("digits-cnn", "minibatch.workers=2", "epochs=1", "numerics.exact=true")
SHARED = "execution.aggregation.algorithm=shared_memory"
"""An error where it cannot be had; memory without a name needs no /dev/shm."""
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    if reason := lacking():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> str:
    return trained(0, SMALL[0], SMALL[1:], None, tmp_path_factory.mktemp("outside") / "run")["weights_sha256"]


def batchscale(*words, **container):
    """(exit code, output, errors) of a command there."""
    ended = inside("-m", "batchscale", *words, **container)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


def test_it_is_what_it_says(tmp_path):
    code = (
        "import os, pathlib, pwd\n"
        "shm = os.statvfs('/dev/shm')\n"
        "print(os.getuid(), os.environ.get('HOME'), shm.f_blocks * shm.f_frsize)\n"
        "for path in ('/x', '/tmp/x', FOLDER + '/x'):\n"
        "    try:\n"
        "        pathlib.Path(path).write_text('')\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
        "try:\n"
        "    pwd.getpwuid(os.getuid())\n"
        "except KeyError:\n"
        "    print('no name')\n"
    ).replace("FOLDER", repr(str(tmp_path)))
    ended = inside("-c", code, writable=[tmp_path], shm_bytes=64 * MIB)
    assert ended.stdout.splitlines() == [
        f"{USER} None {64 * MIB}", "Read-only file system", "Read-only file system", "no name",
    ]  # fmt: skip
    assert (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shm_bytes", [64 * MIB, None])
def test_a_run_of_two_processes_and_its_page(tmp_path, expected, shm_bytes):
    out = tmp_path / "run"
    (tmp_path / "tmp").mkdir()
    container = {"writable": [tmp_path], "shm_bytes": shm_bytes, "environment": {"TMPDIR": str(tmp_path / "tmp")}}
    words = ("train", *SMALL, SHARED, "--processes", "2", "--out", str(out), "--json")
    code, document, err = batchscale(*words, **container)
    assert code == 0, err
    assert json.loads(document)["weights_sha256"] == expected
    code, _, err = batchscale("report", str(out), **container)
    assert (code, err) == (0, "")
    assert (out / "report.html").exists()
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == [f"batchscale-{USER}"]


@pytest.mark.slow
def test_a_run_where_no_file_in_memory_may_be_run(tmp_path):
    out = tmp_path / "run"
    container = {"writable": [tmp_path], "environment": {"TMPDIR": str(tmp_path)}, "memory_files_sealed": True}
    ended = inside("-c", "import os; os.memfd_create('runnable', os.MFD_CLOEXEC | 0x10)", **container)
    if "Permission denied" not in ended.stderr:
        pytest.skip(f"vm.memfd_noexec cannot be set to 2 here: {ended.stderr.strip().splitlines()[-1:]}")
    words = ("train", *SMALL, SHARED, "epochs=0.2", "--processes", "2", "--out", str(out))
    code, _, err = batchscale(*words, **container)
    assert code == 0, err


LINE = "no TMPDIR: no folder for temporary files can be written; set TMPDIR to one that exists and has room"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_without_a_folder_for_temporary_files_the_line_names_tmpdir(tmp_path, processes):
    words = ("train", *SMALL, "--processes", processes, "--out", str(tmp_path / "run"))
    code, _, err = batchscale(*words, writable=[tmp_path])
    assert code == 2
    assert err == f"batchscale: {LINE}\n"
    assert not (tmp_path / "run").exists()


def test_recipes_need_nothing():
    code, document, err = batchscale("recipes", "--json")
    assert (code, err) == (0, "")
    assert "digits-cnn" in document


@pytest.mark.slow
def test_places_may_be_named_one_by_one(tmp_path, expected):
    """No TMPDIR; torch's folder and the home folder are all that one process and its page need."""
    out, named = tmp_path / "run", {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    words = ("train", *SMALL, "--out", str(out), "--json")
    code, document, err = batchscale(*words, writable=[tmp_path], environment=named)
    assert code == 0, err
    assert json.loads(document)["weights_sha256"] == expected
    code, _, err = batchscale("report", str(out), writable=[tmp_path])
    assert (code, err) == (2, f"batchscale: {LINE}\n")
    code, _, err = batchscale("report", str(out), writable=[tmp_path], environment=named)
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_passed_over(tmp_path, expected):
    out, home = tmp_path / "out", tmp_path / "home"
    for folder in (out, home):
        folder.mkdir()
    container = {"writable": [out], "environment": {"HOME": str(home), "TMPDIR": str(out)}}
    code, _, err = batchscale("train", *SMALL, "--out", str(out / "run"), **container)
    assert code == 0, err
    code, _, err = batchscale("report", str(out / "run"), **container)
    assert (code, err) == (0, "")
    assert os.listdir(home) == []
