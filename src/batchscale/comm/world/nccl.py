"""What NCCL needs beside torch's defaults, so that its failures end in our diagnosis, with the rank named.

Its flight recorder keeps the last collectives of a rank; they go into a file beside the error, which ``torchfrtrace``
reads. Source: PyTorch's tutorial "Flight Recorder for Debugging Stuck Jobs".
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from batchscale.errors import UsageError
from batchscale.system.interpreter import variables

GRACE_SECONDS = 60.0
"""How long NCCL's own watchdog, which ends the process without a word, leaves the diagnosis."""

MORE_SHARED_MEMORY = "start the container with --shm-size=1g, or mount an emptyDir of medium Memory at /dev/shm"
"""The way out where NCCL lacks shared memory."""

# First the name of today, then those that torch still takes, with a warning.
_SIZES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
_DUMPS = ("TORCH_FR_DUMP_ON_TIMEOUT", "TORCH_NCCL_DUMP_ON_TIMEOUT")
_FILES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
_ERRORS = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")


def settings(by_watchdog: bool = False) -> dict[str, str]:
    """The variables that NCCL's groups are to find as they are made, beside those that a user has set.

    The recorder on, with a file at a time-out; errors left to us: torch's default (3) ends the process at once, before
    anyone could say which rank failed.

    Args:
        by_watchdog: nobody waits with a bound, as in a hook of DDP, so that end is the only one: leave it.
    """
    wanted = ((_SIZES, "2000"), (_DUMPS, "1"), *([] if by_watchdog else [(_ERRORS, "0")]))
    return {names[0]: value for names, value in wanted if not any(name in os.environ for name in names)}


def make_group(device: torch.device, longest_seconds: float) -> Any:
    """The group of all ranks, its communicator made at once and not in the first backward pass.

    Args:
        device: of this rank.
        longest_seconds: the longest wait that may end well.

    Raises:
        UsageError: shared memory is too small.
    """
    try:
        return new_group(device, timedelta(seconds=longest_seconds), "nccl")
    except RuntimeError as error:
        if "No space left on device" in str(error):
            raise UsageError(f"/dev/shm is too small for NCCL: {MORE_SHARED_MEMORY}") from error
        raise


def backend_for(device: torch.device, group: Any = None) -> str:
    """The backend of a group that sums a device's tensors: each kind may have its own ("cpu:gloo,cuda:nccl").

    Args:
        device: where tensors live.
        group: None for the default one.
    """
    pairs = dict(pair.split(":") for pair in dist.get_backend_config(group).split(",") if ":" in pair)
    return pairs.get(device.type) or str(dist.get_backend(group))


def new_group(
    device: torch.device,
    timeout: timedelta,
    backend: str,
    ranks: Sequence[int] | None = None,
    by_watchdog: bool = False,
) -> Any:
    """A group of these ranks by a backend; all ranks of the default group call this, in one order.

    Args:
        device: of this rank; on a GPU the communicator is made at once.
        timeout: of a wait that ends in a diagnosis.
        backend: gloo or nccl.
        ranks: None for all.
        by_watchdog: as in ``settings``.
    """
    if not backend.startswith("nccl"):
        return dist.new_group(ranks, timeout=timeout, backend=backend)
    with variables(**settings(by_watchdog)):
        return dist.new_group(ranks, timeout=behind(timeout), backend=backend, device_id=device)


def behind(timeout: timedelta) -> timedelta:
    """The bound of a NCCL group whose waits end in a diagnosis after so long."""
    return timeout + timedelta(seconds=GRACE_SECONDS)


def recorded(rank: int, group: Any, device: torch.device) -> str:
    """Writes this rank's last collectives, and says where, as the end of a sentence; "" where there are none.

    Args:
        rank: of this process.
        group: of the reductions; None for the default one.
        device: of this rank.
    """
    prefix = next((os.environ[name] for name in _FILES if os.environ.get(name)), None)
    prefix = prefix or str(Path(tempfile.gettempdir()) / f"batchscale-nccl-{os.getpid()}-rank-")
    with contextlib.suppress(Exception):  # the error at hand is the one to tell
        if content := _last_collectives(group, device):
            Path(f"{prefix}{rank}").write_bytes(content)
            return f"; NCCL's last collectives: {prefix}{rank}"
    return ""


def _last_collectives(group: Any, device: torch.device) -> bytes:
    """The recorder's pickle; b"" where it has noted nothing."""
    module: Any = torch._C._distributed_c10d
    if hasattr(module, "_dump_fr_trace"):  # where NCCL is torch's nccl2, each backend has a recorder of its own
        everyone: Any = dist.group.WORLD
        content: bytes = module._dump_fr_trace(backend=(group or everyone)._get_backend(device).name())
        if pickle.loads(content)["entries"]:
            return content
    content = module._dump_nccl_trace()  # of the NCCL backend that torch had before
    return content if pickle.loads(content)["entries"] else b""


def abandon_groups() -> None:
    """Leave all process groups after a failure: to destroy them would wait for sums that never come."""
    getattr(dist.distributed_c10d, "_abort_process_group", dist.destroy_process_group)()
