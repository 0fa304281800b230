"""Short runs whose bits are compared: with golden values, and between two versions of the source.

As a script it prints {run: {weights, records}} of the batchscale that Python finds, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch

import batchscale

_THREADS = 1
_ALWAYS = (
    "epochs=2", "minibatch.workers=6", "minibatch.per_worker=16", f"numerics.threads={_THREADS}",
    "execution.device=cpu", "execution.log_steps=1",
)  # fmt: skip
"""15 steps an epoch of 96 images each; what a trial would choose is given."""
_FAST, _PASS = "numerics.micro_batch=48", "numerics.micro_batch=16"

RUNS: dict[str, tuple[str, ...]] = {
    "fast": (_FAST,),
    "exact": (_PASS, "numerics.exact=true"),
    "bf16": (_FAST, "precision=bf16"),
    "fp16": (_FAST, "precision=fp16"),
    "growth": (_FAST, "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 12}]}"),
    "span": (_FAST, "batch_norm.span=3"),
    "recomputed": (_FAST, "batch_norm.running=recomputed"),
    "noise": (_PASS, "optimizer.gradient_noise=0.3"),
    "lars-averaged": (_FAST, "optimizer={name: lars}", "model.ema_decay=0.9"),
    "clip-smoothed": (_FAST, "optimizer.clip_norm=0.5", "loss.label_smoothing=0.1", "data.augment.flip=true"),
}
"""Name -> overrides of digits-cnn."""


def conditions() -> str:
    """What the bits of a run hang on beside its recipe: torch, the processor's capability and kind, the threads."""
    words = [f"torch {torch.__version__}", torch.backends.cpu.get_cpu_capability(), f"{_THREADS} thread", _processor()]
    return ", ".join(words)


def _processor() -> str:
    """Vendor, family and model: MKL and oneDNN choose their kernels by them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    entries = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return " ".join(entries.get(name, "?") for name in ("vendor_id", "cpu family", "model"))


def bits(name: str, folder: Path) -> dict[str, str]:
    """Train one of RUNS into an empty folder: the sha256 of its weights, and of what it recorded of its steps."""
    result = batchscale.train("digits-cnn", [*_ALWAYS, *RUNS[name]], out=folder, quiet=True)
    return {"weights": str(result.weights_sha256), "records": _records_sha256(folder)}


def _records_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    kept = {
        "metrics.jsonl": ("step", "epoch", "loss", "train_error_percent", "lr", "minibatch", "loss_scale"),
        "evaluations.jsonl": ("step", "epoch", "error_percent", "loss", "wrong", "images", "on"),
    }
    for file, names in kept.items():
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            digest.update(json.dumps([json.loads(line).get(name) for name in names]).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        json.dump({name: bits(name, Path(root) / name) for name in RUNS}, sys.stdout, indent=1)
