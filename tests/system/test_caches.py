"""Where torch's compiler and matplotlib keep what they build, without a home folder, or a user's name."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.refusing import refusing

import batchscale
from batchscale.build import network
from batchscale.errors import UsageError
from batchscale.system.caches import place_compiled, place_fonts

VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR")
UNUSED = (*VARIABLES, "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def user(tmp_path, monkeypatch):
    """user(home, name): a home folder, None for none; whether there is a name. Gives the folder for temporary files."""
    for name in UNUSED:
        monkeypatch.setenv(name, "")  # to be as it was after the test, whatever is set in it
        monkeypatch.delenv(name)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def set_up(home, has_name):
        if home is None:
            monkeypatch.delenv("HOME", raising=False)
            monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without a line in /etc/passwd
        else:
            monkeypatch.setenv("HOME", str(home))
        if not has_name:
            monkeypatch.setattr(getpass, "getuser", nameless)
        return place

    return set_up


def nameless():
    raise KeyError("getpwuid(): uid not found: 12345")


def places() -> dict[str, str | None]:
    place_compiled()
    place_fonts()
    return {name: os.environ.get(name) for name in VARIABLES}


def test_with_a_home_and_a_name_nothing_is_set(tmp_path, user):
    user(tmp_path, True)
    assert places() == dict.fromkeys(VARIABLES)


@pytest.mark.parametrize("home", [None, "/dev/null/home", "/dev/null", "relative"])
def test_without_either_they_lie_below_the_temporary_folder(user, home):
    own = user(home, False) / f"batchscale-{os.getuid()}"
    assert places() == {
        "TORCHINDUCTOR_CACHE_DIR": f"{own}/inductor",
        "TRITON_CACHE_DIR": f"{own}/triton",
        "MPLCONFIGDIR": f"{own}/matplotlib",
    }
    assert own.stat().st_mode & 0o777 == 0o700
    assert places()["MPLCONFIGDIR"] == f"{own}/matplotlib"  # the same again


def test_what_the_user_has_named_stays(user, monkeypatch):
    user(None, False)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"/{name}")
    assert places() == {name: f"/{name}" for name in VARIABLES}


def test_folders_for_settings_and_caches_are_as_good_as_a_home(tmp_path, user, monkeypatch):
    user(None, True)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert places()["MPLCONFIGDIR"] is None


@pytest.mark.parametrize("how", ["a link", "a file", "for all"])
def test_a_folder_that_others_could_have_laid_there_is_not_taken(tmp_path, user, monkeypatch, how):
    place = user(None, False)
    own = place / f"batchscale-{os.getuid()}"
    if how == "a link":
        own.symlink_to(tmp_path)
    elif how == "a file":
        own.touch()
    else:
        own.mkdir()
        own.chmod(0o777)
    second = place / f"{own.name}-2"
    folders = {Path(folder or "").parent for folder in (*places().values(), *places().values())}
    assert folders == {second}  # the same again, so that none is left by each process
    assert second.stat().st_mode & 0o777 == 0o700
    second.chmod(0o777)
    monkeypatch.delenv("TRITON_CACHE_DIR")
    assert places()["TRITON_CACHE_DIR"] == f"{own}-3/triton"
    assert sorted(place.iterdir()) == [own, second, place / f"{own.name}-3"]


def test_a_run_from_python_leaves_the_variables_as_they_were(user, monkeypatch):
    user(None, False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    within = []
    monkeypatch.setattr(network, "place_compiled", lambda: (place_compiled(), within.append(dict(os.environ))))
    batchscale.train("digits-cnn", ["epochs=0.05", "execution.device=cpu"], quiet=True)
    assert within[0]["TORCHINDUCTOR_CACHE_DIR"].endswith("inductor")
    assert [os.environ.get(name) for name in VARIABLES] == [None, "/mine", None]


def test_without_any_folder_it_is_one_line(user, monkeypatch):
    user(None, False)
    monkeypatch.setattr(tempfile, "gettempdir", refusing(2))
    for place in (place_compiled, place_fonts):
        with pytest.raises(UsageError, match="no folder for temporary files can be written; set TMPDIR"):
            place()


def test_whoever_draws_has_a_place_for_fonts_before_matplotlib_is_there(tmp_path):
    code = (
        "import batchscale.report.draw.scales, os, matplotlib as m; print(os.environ['MPLCONFIGDIR'], m.get_cachedir())"
    )
    variables = {**os.environ, "HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        variables.pop(name, None)
    ended = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    folder = f"{tmp_path}/batchscale-{os.getuid()}/matplotlib"
    assert (ended.stdout, ended.stderr) == (f"{folder} {folder}\n", "")
