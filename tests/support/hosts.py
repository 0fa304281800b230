"""Several hosts on one machine, as containers are: each has process ids of its own, and where possible a network.

Networks are network namespaces joined by a bridge where the rights allow it, else loopback addresses, one a host.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_PROCESSES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_USER = ("unshare", "--user", "--map-root-user", *_PROCESSES[1:])


@dataclass(frozen=True)
class Host:
    """Where an agent runs: its address, its interface, and what stands before its command."""

    address: str
    interface: str
    prefix: tuple[str, ...] = ()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


def _works(*command: str) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode == 0
    return False


@contextlib.contextmanager
def _networks(count: int) -> Iterator[list[Host]]:
    """Hosts of 10.99.0.0/24, each a network namespace, joined by a bridge in one more; OSError where not allowed."""
    if shutil.which("ip") is None:
        raise OSError("no ip")
    mark = uuid.uuid4().hex[:6]
    names = [f"batchscale-{mark}-{number}" for number in range(count)]
    switch = f"batchscale-{mark}-switch"
    created = []
    try:
        for name in (switch, *names):
            _ip("netns", "add", name)
            created.append(name)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            _ip("link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"10.99.0.{number + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        prefixes = [("ip", "netns", "exec", name, *_PROCESSES) for name in names]
        yield [Host(f"10.99.0.{number + 1}", "eth0", prefix) for number, prefix in enumerate(prefixes)]
    finally:
        for name in created:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.contextmanager
def hosts(count: int, networks: bool = False) -> Iterator[list[Host]]:
    """So many hosts for as long as the block; skips where the rights do not allow one.

    Args:
        count: of hosts.
        networks: each must have a network of its own.
    """
    with contextlib.ExitStack() as stack:
        try:
            machines = stack.enter_context(_networks(count))
        except (OSError, subprocess.SubprocessError):
            prefix = next((prefix for prefix in (_PROCESSES, _AS_USER) if _works(*prefix)), None)
            if prefix is None or networks:
                pytest.skip(f"no host to be had on this machine: {'no networks' if networks else _PROCESSES} allowed")
            machines = [Host(f"127.0.0.{number + 2}", "lo", prefix) for number in range(count)]
        yield machines
