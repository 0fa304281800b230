"""The same training as other libraries' documentation writes it: one file a peer, each with its source.

``main(assignment, meter)`` is the script, endless, with ``meter.step()`` at the end of each step. A further peer is one
more file and its name in ``PEERS``.
"""

from __future__ import annotations

DOCUMENTED = ("ddp_torchvision", "ddp_tensor", "lightning", "accelerate")
"""Peers written as their documentation says; the best of them is what most people would have."""

TUNED = "ddp_tuned"
"""DistributedDataParallel with everything that we know to make it fast."""

PEERS = ("ddp_torchvision", "ddp_tensor", TUNED, "lightning", "accelerate")

PACKAGES = {"ddp_torchvision": "torchvision", "lightning": "lightning", "accelerate": "accelerate"}
"""The package that a peer needs beside torch."""
