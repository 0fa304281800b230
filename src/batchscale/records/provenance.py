"""Where a run was computed: versions, host, git commit, command."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from batchscale import __version__
from batchscale.members.loading import loaded
from batchscale.records.command import this_command
from batchscale.system.cores import available_cores

_PACKAGES = ("torch", "torchvision", "numpy", "pydantic", "safetensors")


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that holds this folder, with ``+changes``, or None outside one."""
    try:
        commit = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def cpu_model() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    """Of an installed package; None of one that is not, as a source tree on the path is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _slurm_step() -> dict[str, Any]:
    """The job and the nodes of the step of Slurm that this process belongs to; nothing outside one."""
    nodes = os.environ.get("SLURM_STEP_NODELIST")
    return {"slurm": {"job": os.environ.get("SLURM_JOB_ID"), "nodes": nodes}} if nodes else {}


def environment(command: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, host, command and commit, without importing anything heavy.

    Args:
        command: its words; () for what started this process.
    """
    versions = {"batchscale": __version__, **{package: version_of(package) for package in _PACKAGES}}
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command) or this_command(),
        "versions": {"python": platform.python_version(), **versions},
        "plugins": loaded(),
        "host": socket.gethostname(),
        **_slurm_step(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "git_commit": git_commit(Path(__file__).parent),
    }
