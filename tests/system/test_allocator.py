"""Memory that is freed is kept: pages that the kernel hands out while the same sizes are asked for again and again."""

import platform
import subprocess
import sys

import pytest
import torch

from batchscale.build import build as build_module
from batchscale.recipe import load_recipe
from batchscale.system.allocator import keep_freed_memory

REPEATS, MIB = 60, 40
COUNT = f"""
import resource, torch
from batchscale.system.allocator import keep_freed_memory
print(keep_freed_memory())
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones({MIB} << 18)
before = pages()
for _ in range({REPEATS}):
    torch.ones({MIB} << 18)
print((pages() - before) * resource.getpagesize() >> 20)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def answer(**environment):
    """(whether memory is kept, MiB of new pages while 40 MiB are asked for sixty times)."""
    found = subprocess.run(
        [sys.executable, "-c", COUNT],
        check=True,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", **environment},
    )
    kept, mib = found.stdout.split()
    return kept == "True", int(mib)


@glibc
def test_what_is_freed_is_kept_for_what_asks_next():
    kept, mib = answer()
    assert kept
    assert mib < REPEATS / 3 * MIB  # aligned memory leaves gaps, until what is free fits: 7 times 40 MiB


@glibc
@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_MMAP_MAX_": "65536"},
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_what_the_environment_says_stays(environment):
    kept, mib = answer(**environment)
    assert not kept
    assert mib > (REPEATS - 1) * MIB


@glibc
def test_what_is_kept_can_be_given_back():
    code = f"""
import torch
from batchscale.build.memory import HostMemory
from batchscale.system.allocator import keep_freed_memory
keep_freed_memory()
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) >> 10
torch.ones({MIB} << 18)
kept = resident()
HostMemory().release()
print(kept - resident())
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(found.stdout) > MIB / 2


@pytest.mark.parametrize(("device", "calls"), [("cpu", 1), ("meta", 0)])
def test_a_run_on_processors_keeps_it(monkeypatch, device, calls):
    called = []
    monkeypatch.setattr(build_module, "keep_freed_memory", lambda: called.append(1))
    build_module._prepare_process(load_recipe("digits-cnn", ["numerics.threads=1"]), torch.device(device))
    assert len(called) == calls


@pytest.mark.parametrize("preloaded", ["/usr/lib/libjemalloc.so.2", "libtcmalloc_minimal.so"])
def test_another_allocator_is_left_alone(monkeypatch, preloaded):
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()
