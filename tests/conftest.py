"""A session of its own; where real data lies on this machine (or a skip that says why not)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.datafiles import CIFAR_FILES

from batchscale.system import notes

_OURS = ("BATCHSCALE_DATA",)
_FORCED = ("BATCHSCALE_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "TORCHELASTIC_", "SLURM_", "OMP_", "GOMP_", "MKL_")
_FORCED += (
    "OMPI_",
    "PMI",
    "MPI_LOCAL",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    "XDG_",
)
"""What a shell, a container or a cluster may have set, and the commands under test would go by."""


def pytest_configure(config: pytest.Config) -> None:
    """Every session has a home folder of its own, with its caches, and none of the shell's settings."""
    if hasattr(config, "workerinput"):
        return  # one of xdist's processes: it has the environment of the first
    for name in list(os.environ):
        if name.startswith(_FORCED) and name not in _OURS:
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="batchscale-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ["HOME"] = home
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{home}/inductor"  # else one in /tmp for all sessions


settings.register_profile("no timing decides", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no timing decides")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No note was said before, and no launcher's variables are left over in the shell."""
    monkeypatch.setattr(notes, "_noted", set())
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data: BATCHSCALE_DATA, else ../shared/data beside the repository; skips without."""
    named = os.environ.get("BATCHSCALE_DATA", "")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is no folder; set BATCHSCALE_DATA to the folder that holds mnist, ...")
    return folder


@pytest.fixture(scope="session")
def cifar_folder(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A --data folder that holds CIFAR-10's official files; made from lossless sheets where only those are there."""
    for folder in (data_folder / "cifar10", data_folder / "cifar-10-batches-py", data_folder):
        if all((folder / name).is_file() for name in CIFAR_FILES):
            yield data_folder
            return
    sheets, tool = data_folder / "cifar10", data_folder.parent / "tools" / "cifar10_batches.py"
    if not (tool.is_file() and any(sheets.glob("*.webp"))):
        pytest.skip(f"no real CIFAR-10: neither official files in {sheets} nor sheets there and {tool}")
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("no real CIFAR-10: its sheets need Pillow")
    folder = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, tool, sheets, folder / "cifar10"], check=True, capture_output=True, timeout=120)
    yield folder
    shutil.rmtree(folder)  # 186 MB: pytest would keep three of them
