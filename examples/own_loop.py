"""The parts alone, in a loop of one's own: bitwise the same weights on any number of processes.

python examples/own_loop.py
torchrun --nproc-per-node=2 examples/own_loop.py
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import nn

import batchscale

torch.set_num_threads(1)
world = batchscale.World.connect(torch.device("cpu"), timeout_seconds=60)
minibatch = batchscale.Minibatch(workers=6, per_worker=16)
my_workers = batchscale.place_workers(minibatch.workers, world.size)[world.rank]

generator = torch.Generator().manual_seed(0)
images = torch.randn(960, 20, generator=generator)
labels = (images[:, :4].sum(1) > 0).long()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))

steps = 30
target = batchscale.scaled_lr(reference=0.05, reference_minibatch=32, minibatch_images=minibatch.images, rule="linear")
schedule = batchscale.Schedule(0.05, target, steps, "gradual", 5, batchscale.Decay("cosine"))
optimizer = batchscale.SGD(batchscale.decay_groups(model, 1e-4, False, True), momentum=0.9, nesterov=True)
aggregator = batchscale.ExactAggregator(list(model.parameters()), minibatch.workers, batchscale.Reducer(world))

for step in range(steps):
    for _ in aggregator.attempts():  # a step whose gradients left their range is repeated on a coarser scale
        for worker in my_workers:
            first = (step * minibatch.images + worker * minibatch.per_worker) % len(images)
            mine = slice(first, first + minibatch.per_worker)
            (F.cross_entropy(model(images[mine]), labels[mine], reduction="sum") / minibatch.images).backward()
            aggregator.add()
    optimizer.step(lr=schedule(step))

if world.rank == 0:
    error = 100 * (model(images).argmax(1) != labels).float().mean()
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    print(f"error {error:.2f} %  weights {digest[:16]}")
world.close()
