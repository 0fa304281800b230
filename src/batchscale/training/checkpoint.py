"""Checkpoints: written aside, synced, renamed, checksummed; the last two kept; no pickle.

checkpoints/step-0000000123/state.safetensors    weights, buffers, optimizer and aggregation state
checkpoints/step-0000000123/manifest.json        step, totals, identity, fingerprint, sha256 of state and manifest
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from batchscale.errors import CheckpointError
from batchscale.records.files import cannot_write
from batchscale.system.disk import exchange, sync, sync_folder
from batchscale.words import counted

_KEPT = 2
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A state after so many steps.

    Args:
        step: steps done.
        tensors: every tensor of the state by name.
        totals: what the records sum up (plain JSON).
        identity: the recipe's identity entries.
        fingerprint: how it was computed.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    totals: dict[str, Any]
    identity: dict[str, Any]
    fingerprint: dict[str, str]


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and bytes of all tensors, in their order, each in its logical (row-major) layout."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors as a safetensors file, each in its logical (row-major) layout, tied ones written out twice."""
    plain = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    return bytes(save_safetensors(plain))


def _write_synced(path: Path, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        sync(file.fileno())


def folders(out: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    root = out / "checkpoints"
    return sorted(f for f in root.glob("step-*") if f.is_dir()) if root.is_dir() else []


def steps_of(folder: Path) -> int:
    """Steps done in the checkpoint that lies in this folder."""
    return int(folder.name.removeprefix("step-"))


def steps_saved(out: Path) -> int:
    """Steps done in the newest checkpoint, 0 where there is none."""
    return steps_of(folders(out)[-1]) if folders(out) else 0


def folder_of(run: Path, step: int | None, setting: str) -> Path:
    """The folder of one of a run's checkpoints.

    Args:
        run: its folder.
        step: None for the newest.
        setting: what asks for the step, for the error.

    Raises:
        CheckpointError: there is none of this step; those that exist are listed.
    """
    by_step = {steps_of(folder): folder for folder in folders(run)}
    if not by_step:
        raise CheckpointError(f"{run}: holds no checkpoint; train it further, or give another run")
    if step is None:
        return by_step[max(by_step)]
    if step not in by_step:
        listed = ", ".join(str(step) for step in sorted(by_step))
        raise CheckpointError(
            f"{setting} {step}: {run} has no checkpoint of this step; it has {counted(len(by_step), 'checkpoint')}, of "
            f"step {listed}; name one of these, or train with execution.keep_checkpoints={{steps: [{step}]}}"
        )
    return by_step[step]


def save(
    out: Path,
    checkpoint: Checkpoint,
    stays: Callable[[int], bool] = lambda step: False,
    state: memoryview | None = None,
) -> Path:
    """Write a checkpoint; older ones than the last two go only when it is safely there.

    Args:
        out: the run's folder.
        checkpoint: what is to be kept.
        stays: whether the checkpoint of so many steps is never to go.
        state: its tensors as ``to_bytes`` makes them, where they were copied before; they may have changed since.

    Raises:
        FolderError: the folder cannot be written; the checkpoints before are untouched.
    """
    root = out / "checkpoints"
    final = root / f"step-{checkpoint.step:010d}"
    aside = root / f".part-{os.getpid()}"
    try:
        root.mkdir(exist_ok=True)
        for stale in root.glob(".part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        aside.mkdir()
        content = to_bytes(checkpoint.tensors) if state is None else state
        manifest = {
            "format": _FORMAT,
            "step": checkpoint.step,
            "state_sha256": hashlib.sha256(content).hexdigest(),
            "totals": checkpoint.totals,
            "identity": checkpoint.identity,
            "fingerprint": checkpoint.fingerprint,
        }
        _write_synced(aside / "state.safetensors", content)
        _write_synced(aside / "manifest.json", json.dumps({**manifest, "seal": _seal(manifest)}).encode())
        sync_folder(aside)
        if final.exists():  # of an earlier attempt
            exchange(aside, final)
        else:
            aside.rename(final)
        sync_folder(root)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise cannot_write(final, error) from error
    _remove_old(out, stays)
    return final


def _remove_old(out: Path, stays: Callable[[int], bool]) -> None:
    for outdated in folders(out)[:-_KEPT]:
        if not stays(steps_of(outdated)):
            with contextlib.suppress(OSError):  # by a rename: who looks from outside finds it whole or not at all
                outdated.rename(outdated.with_name(f".{outdated.name}.before.part"))
    for old in (out / "checkpoints").glob(".step-*.before.part"):
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint, every byte checked.

    Raises:
        CheckpointError: it is truncated, altered, or of another format.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        state = (folder / "state.safetensors").read_bytes()
        seal = manifest.pop("seal")
        if seal != _seal(manifest):
            raise CheckpointError(f"{folder}: manifest.json was altered (its seal does not fit)")
        if manifest["format"] != _FORMAT:
            raise CheckpointError(f"{folder}: format {manifest['format']}, this version reads {_FORMAT}")
        if hashlib.sha256(state).hexdigest() != manifest["state_sha256"]:
            raise CheckpointError(f"{folder}: state.safetensors is truncated or altered (its sha256 does not fit)")
        tensors = load_safetensors(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({type(error).__name__}: {error})") from None
    return Checkpoint(manifest["step"], tensors, manifest["totals"], manifest["identity"], manifest["fingerprint"])


def newest(out: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each damaged one that was passed over.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(folders(out)):
        try:
            return load(folder), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(
            f"{damaged[0]}; no older checkpoint is whole; start a new run in another --out DIR (nothing was removed)"
        )
    return None, damaged


def check_identity(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise unless both recipes train the same run.

    Raises:
        CheckpointError: names the differing entries with both values.
    """
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    if names:
        shown = ", ".join(f"{n} ({before.get(n)} there, {now.get(n)} asked for)" for n in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise CheckpointError(
            f"{where}: holds a run of another recipe: {shown}{more}; resume with that recipe, or give another --out DIR"
        )
