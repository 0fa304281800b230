"""Cores and memory that control groups leave: of both versions, nested, in a container, and in a real group."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import soon

from batchscale.comm.shared.mapping import free_bytes
from batchscale.system import cores
from batchscale.system.control_groups import core_quota
from batchscale.system.cores import available_cores

MIB = 1 << 20


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def second_version(group: str, limits: dict[str, str]) -> dict[str, str]:
    """Folder below the mount -> cpu.max."""
    return {"proc/self/cgroup": f"0::{group}\n"} | {f"sys/fs/cgroup/{f}cpu.max": text for f, text in limits.items()}


def first_version(group: str, quotas: dict[str, str], controllers: str = "cpu,cpuacct") -> dict[str, str]:
    """Folder below the mount -> quota in microseconds of a period of 100,000."""
    mount = f"sys/fs/cgroup/{controllers}"
    return (
        {"proc/self/cgroup": f"12:cpuset:/\n4:{controllers}:{group}\n1:name=systemd:/x\n0::/\n"}
        | {f"{mount}/{folder}cpu.cfs_quota_us": text for folder, text in quotas.items()}
        | {f"{mount}/{folder}cpu.cfs_period_us": "100000\n" for folder in quotas}
    )


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": ""}, None),
        ({"proc/self/cgroup": "no lines of three words\n"}, None),
        (second_version("/", {"": "max 100000\n"}), None),
        (second_version("/", {"": "400000 100000\n"}), 4),
        (second_version("/", {"": "150000 100000\n"}), 1),  # rounded down
        (second_version("/", {"": "390000 100000\n"}), 3),
        (second_version("/", {"": "50000 100000\n"}), 1),  # at least one
        (second_version("/", {"": "25000 10000\n"}), 2),
        (second_version("/", {"": "damaged\n"}), None),
        (second_version("/", {"": "100000 0\n"}), None),
        (second_version("/job/step", {"job/step/": "max 100000\n", "job/": "200000 100000\n"}), 2),
        (second_version("/job/step", {"job/step/": "300000 100000\n", "job/": "800000 100000\n"}), 3),
        (second_version("/machine/of/docker", {"": "200000 100000\n"}), 2),  # the mount begins at the container's
        (first_version("/", {"": "-1\n"}), None),
        (first_version("/a", {"a/": "250000\n"}), 2),
        (first_version("/a/b", {"a/b/": "-1\n", "a/": "300000\n"}), 3),
        (first_version("/docker/1234", {"": "100000\n"}), 1),
        (first_version("/a", {"a/": "200000\n"}, "cpu"), 2),
        ({**second_version("/a", {}), "sys/fs/cgroup/unified/a/cpu.max": "200000 100000\n"}, 2),
    ],
)
def test_a_quota_is_the_tightest_of_all_groups_around_in_whole_cores(tmp_path, monkeypatch, files, quota):
    root = tree(tmp_path, files)
    assert core_quota(root) == quota
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert available_cores(root) == min(3, quota or 3)  # taskset and quota: the tighter one


def memory(limits: dict[str, str]) -> dict[str, str]:
    return {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (memory({"memory.max": "max\n", "memory.current": "900\n"}), 9_216_000),
        (memory({"memory.max": "5000\n", "memory.high": "max\n", "memory.current": "900\n"}), 4100),
        (memory({"memory.max": "5000\n", "memory.high": "2000\n", "memory.current": "900\n"}), 1100),
        (
            memory(
                {
                    "memory.max": "5000\n",
                    "memory.current": "4000\n",
                    "memory.stat": "anon 500\nfile 3500\nshmem 1000\ninactive_file 2000\nactive_file 500\n",
                }
            ),
            3500,  # the file caches can go; what lies in shared memory cannot
        ),
    ],
)
def test_memory_of_a_group_is_what_its_limits_leave_and_its_file_caches_hold(tmp_path, files, free):
    machine = {"proc/meminfo": "MemAvailable: 9000 kB\n", "proc/self/cgroup": "0::/\n"}
    assert free_bytes(tree(tmp_path, machine | files)) == free


def test_memory_of_a_group_around_counts_its_members_caches(tmp_path):
    """In version 1 a group's own line does not; total_ lines do."""
    mount = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "4:memory:/a/b\n",
        f"{mount}/a/memory.limit_in_bytes": "700\n",
        f"{mount}/a/memory.usage_in_bytes": "600\n",
        f"{mount}/a/memory.stat": "inactive_file 1\nactive_file 2\ntotal_inactive_file 100\ntotal_active_file 50\n",
        f"{mount}/a/b/memory.limit_in_bytes": "9223372036854771712\n",
        f"{mount}/a/b/memory.usage_in_bytes": "600\n",
    }
    assert free_bytes(tree(tmp_path, files)) == 250


@contextlib.contextmanager
def real_group(controller: str, settings: dict[str, dict[int, str]]) -> Iterator[Path]:
    """A group of this machine with these settings, each under its name in version 1 and 2; skips where it may not be.

    Args:
        controller: of the settings.
        settings: version -> file -> text.
    """
    name = f"batchscale-test-{uuid.uuid4().hex[:8]}"
    base = Path("/sys/fs/cgroup")
    version, folder = (1, base / controller / name) if (base / controller).is_dir() else (2, base / name)
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(
            f"no control group can be made in {folder.parent} ({error.strerror}): needs root, and /sys writable"
        )
    try:
        try:
            for file, text in settings[version].items():
                (folder / file).write_text(text)
        except OSError as error:
            pytest.skip(f"control groups have no {controller} controller here ({error.strerror})")
        yield folder
    finally:
        assert soon(lambda: _removed(folder))


def _removed(group: Path) -> bool:
    """Not while a process that was in it is still ending."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def inside(folder: Path, *words: str) -> str:
    """What a Python command prints, in a group."""
    enter = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
    command = ["sh", "-c", enter, "sh", sys.executable, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


QUOTA = {
    1: {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "120000"},
    2: {"cpu.max": "120000 100000"},
}


def test_a_run_in_a_real_group_of_one_core_takes_one_thread(tmp_path):
    with real_group("cpu", QUOTA) as folder:
        code = "from batchscale.system.cores import available_cores; print(available_cores())"
        assert inside(folder, "-c", code) == "1\n"
        words = ("train", "digits-cnn", "epochs=0.05", "numerics.threads=auto", "--out", str(tmp_path / "run"))
        inside(folder, "-m", "batchscale", *words)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["decided"]["threads"] == 1
    assert environment["cores"] == 1


def test_memory_of_a_real_group_is_within_its_limit():
    limit = str(600 * MIB)
    with real_group("memory", {1: {"memory.limit_in_bytes": limit}, 2: {"memory.max": limit}}) as folder:
        code = "from batchscale.comm.shared.mapping import free_bytes; print(free_bytes())"
        assert 0 < int(inside(folder, "-c", code)) <= 600 * MIB


def test_where_no_quota_is_set_the_cores_are_those_allowed(tmp_path):
    assert available_cores(str(tmp_path)) == len(os.sched_getaffinity(0))
