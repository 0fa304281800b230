"""Your own DistributedDataParallel loop with batchscale's all-reduce: one line more.

torchrun --nproc-per-node=2 examples/ddp_hook.py [ALGORITHM]
"""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import batchscale

dist.init_process_group("gloo")
torch.manual_seed(0)
layers = [torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)]
model = DistributedDataParallel(torch.nn.Sequential(*layers))
choice = batchscale.ddp_hook(model, sys.argv[1] if len(sys.argv) > 1 else "auto")

optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
generator = torch.Generator().manual_seed(dist.get_rank())
for _ in range(20):
    images, labels = torch.randn(32, 64, generator=generator), torch.randint(0, 10, (32,), generator=generator)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

total = sum(float(p.detach().double().abs().sum()) for p in model.parameters())
if dist.get_rank() == 0:
    print(f"all-reduce: {choice.limits[-1][1]} ({choice.why}); sum of |weights| {total:.3f}")
dist.barrier()
dist.destroy_process_group()
