"""What NCCL needs beside torch's defaults, so that its failures end in our diagnosis, with the rank named.

Its flight recorder keeps the last collectives of a rank; they go into a file beside the error, which ``torchfrtrace``
reads. Source: PyTorch's tutorial "Flight Recorder for Debugging Stuck Jobs".
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from batchscale.errors import UsageError

GRACE_SECONDS = 60.0
"""How long NCCL's own watchdog, which ends the process without a word, leaves the diagnosis."""

MORE_SHARED_MEMORY = "start the container with --shm-size=1g, or mount an emptyDir of medium Memory at /dev/shm"
"""The way out where NCCL lacks shared memory."""

# First the name of today, then those that torch still takes, with a warning.
_SIZES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
_DUMPS = ("TORCH_FR_DUMP_ON_TIMEOUT", "TORCH_NCCL_DUMP_ON_TIMEOUT")
_FILES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
_ERRORS = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")


def prepare() -> None:
    """Set what NCCL's groups read as they are made; what a user has set stays.

    The recorder on, with a file at a time-out; errors left to us: torch's default (3) ends the process at once, before
    anyone could say which rank failed.
    """
    for names, value in ((_SIZES, "2000"), (_DUMPS, "1"), (_ERRORS, "0")):
        if not any(name in os.environ for name in names):
            os.environ[names[0]] = value


def make_group(device: torch.device, longest_seconds: float) -> Any:
    """The group of all ranks, its communicator made at once and not in the first backward pass.

    Args:
        device: of this rank.
        longest_seconds: the longest wait that may end well.

    Raises:
        UsageError: shared memory is too small.
    """
    prepare()
    try:
        return dist.new_group(backend="nccl", timeout=behind(timedelta(seconds=longest_seconds)), device_id=device)
    except RuntimeError as error:
        if "No space left on device" in str(error):
            raise UsageError(f"/dev/shm is too small for NCCL: {MORE_SHARED_MEMORY}") from error
        raise


def behind(timeout: timedelta) -> timedelta:
    """The bound of a NCCL group whose waits end in a diagnosis after so long."""
    return timeout + timedelta(seconds=GRACE_SECONDS)


def recorded(rank: int) -> str:
    """Writes this rank's last collectives, and says where, as the end of a sentence; "" where that cannot be.

    Args:
        rank: of this process.
    """
    prefix = next((os.environ[name] for name in _FILES if os.environ.get(name)), None)
    prefix = prefix or str(Path(tempfile.gettempdir()) / f"batchscale-nccl-{os.getpid()}-rank-")
    with contextlib.suppress(Exception):  # the error at hand is the one to tell
        content: bytes = torch._C._distributed_c10d._dump_nccl_trace()  # type: ignore[attr-defined]
        Path(f"{prefix}{rank}").write_bytes(content)
        return f"; NCCL's last collectives: {prefix}{rank}"
    return ""


def abandon_groups() -> None:
    """Leave all process groups after a failure: to destroy them would wait for sums that never come."""
    getattr(dist.distributed_c10d, "_abort_process_group", dist.destroy_process_group)()
