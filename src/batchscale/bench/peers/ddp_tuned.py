"""DistributedDataParallel with what we know to make it fast on CPUs.

One tensor in memory, laid out channels-last, a minibatch cut out of it by one index_select; channels-last weights;
fused SGD; gradients as views of the buckets; no broadcast of batch norm's buffers; freed memory is kept, as by the
trainer.

Source: docs.pytorch.org: generated/torch.nn.parallel.DistributedDataParallel.html (gradient_as_bucket_view,
broadcast_buffers), tutorials/intermediate/memory_format_tutorial.html, generated/torch.optim.SGD.html (fused).
"""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter
from batchscale.system.allocator import keep_freed_memory


def main(assignment: Assignment, meter: Meter) -> None:
    """Train without end."""
    keep_freed_memory()
    dist.init_process_group("gloo")
    images, labels = assignment.normalised()
    pictures = images.ndim == 4
    # (N, H, W, C): rows of it, seen as (n, C, H, W), are channels-last
    rows = images.permute(0, 2, 3, 1).contiguous() if pictures else images
    del images

    model = assignment.model()
    if pictures:
        model = model.to(memory_format=torch.channels_last)
    model = DDP(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    loss_fn = assignment.mean_loss
    optimizer = assignment.optimizer(model.parameters(), fused=True)

    for epoch in itertools.count():
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        share = order[dist.get_rank() :: dist.get_world_size()]
        whole = len(share) // assignment.process_images * assignment.process_images
        for index in torch.split(share[:whole], assignment.process_images):
            optimizer.zero_grad()
            part = rows.index_select(0, index)
            logits = model(part.permute(0, 3, 1, 2) if pictures else part)
            loss = loss_fn(logits, labels.index_select(0, index))
            loss.backward()
            optimizer.step()
            meter.step()
