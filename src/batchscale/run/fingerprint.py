"""What decides the bits of a run beside its recipe: compared between processes, and in exact mode at a resume."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

import torch

from batchscale.data.contents import Contents, difference, merged
from batchscale.errors import DataError, ExactnessError, ProcessError
from batchscale.recipe.numerics import Numerics
from batchscale.records.provenance import cpu_model


def fingerprint(numerics: Numerics, threads: int, micro_batch: int, device: torch.device) -> dict[str, str]:
    """Everything that may change bits: torch build, instruction set, threads, memory format, compile, device."""
    cuda = device.type == "cuda"
    kind = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if cuda else _processor()
    return {
        "torch": torch.__version__,
        "torch_build": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": str(torch.backends.mkldnn.enabled),
        "instruction_limits": " ".join(f"{n}={os.environ[n]}" for n in sorted(os.environ) if n in _LIMITS),
        "threads": str(threads),
        "memory_format": numerics.memory_format,
        "micro_batch": str(micro_batch),
        "evaluation_chunk": str(numerics.evaluation_chunk),
        "compile": str(numerics.compile),
        "exact": str(numerics.exact),
        "device": kind,
        "float32_matmul": torch.get_float32_matmul_precision(),
        **(_slice_of_gpu(device) if cuda else {}),
    }


def _slice_of_gpu(device: torch.device) -> dict[str, str]:
    """What tells two sizes of a partitioned GPU apart, whose names are the same."""
    return {"multiprocessors": str(torch.cuda.get_device_properties(device).multi_processor_count)}


def _processor() -> str:
    """The processor's name and a digest of its features: libraries choose kernels by more than AVX-512 or not."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = ""
    return f"{cpu_model()} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


_LIMITS = {
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
}


_MAY_DIFFER = ("threads ", "device ", "instruction", "multiprocessors ")
"""Beginnings of what processes may have otherwise in fast mode."""


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """The names whose values differ, with both values."""
    return [f"{n} ({a.get(n)} / {b.get(n)})" for n in sorted({*a, *b}) if a.get(n) != b.get(n)]


def check_same(prints: list[dict[str, str]], exact: bool) -> None:
    """Raise unless all processes compute alike (fast mode lets threads and processors differ: equal to rounding).

    Raises:
        ProcessError: names the rank and what differs from rank 0.
    """
    for rank, other in enumerate(prints):
        names = differing(prints[0], other)
        if not exact:
            names = [n for n in names if not n.startswith(_MAY_DIFFER)]
        if names:
            raise ProcessError(f"rank {rank} does not compute as rank 0 does: {', '.join(names)}; make them alike")


def check_same_data(contents: Sequence[Contents]) -> None:
    """Raise unless all processes train on the same images, in fast mode as in exact.

    Args:
        contents: ``Splits.contents`` of every rank.

    Raises:
        DataError: names the rank and what differs from the ranks before it.
    """
    for rank, rank_contents in enumerate(contents):
        if sentence := difference(merged(contents[:rank]), rank_contents, ("on rank 0", f"on rank {rank}")):
            raise DataError(
                f"rank {rank} has other data than the ranks before it: {sentence}; all processes must train on the "
                f"same images; copy the data set anew to the host of that rank, or name the same one with --data"
            )


def check_resume(begun: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise unless an exact run goes on as it began, in all that it then wrote down.

    Raises:
        ExactnessError: names what differs.
    """
    names = differing(begun, {name: value for name, value in now.items() if name in begun})  # begun by an older version
    if names:
        raise ExactnessError(
            f"resume of an exact run: computed otherwise than it began: {', '.join(names)}; "
            f"resume it where these are the same, or start a new run"
        )
