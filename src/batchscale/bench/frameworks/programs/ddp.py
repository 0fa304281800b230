"""PyTorch: DistributedDataParallel over Gloo, a DataLoader over tensors, torch.optim.

Source: docs.pytorch.org/tutorials/beginner/ddp_series_multigpu.html; the batches come in the order that is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from protocol import ProcessWork, Setting, begin, serve

WORK = begin()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from nets_torch import loss_of, net_of  # noqa: E402
from torch.nn.parallel import DistributedDataParallel as DDP  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402


class DdpTraining:
    """A model behind DDP, an optimizer of torch's."""

    def __init__(self, work: ProcessWork) -> None:
        torch.set_num_threads(work.threads)
        dist.init_process_group("gloo")
        self._work, self._loss = work, loss_of(work.net)
        images, targets = work.examples("train")
        self._dataset = TensorDataset(torch.from_numpy(images.copy()), torch.from_numpy(targets.copy()))

    def steps(self, setting: Setting) -> Iterator[torch.Tensor]:
        """The tutorial's loop."""
        model = net_of(self._work)
        self._model = DDP(model)
        optimizer, rates = _optimizer(model, setting), setting.learning_rates()
        loader = DataLoader(self._dataset, batch_sampler=self._work.rows(setting).tolist())
        step = itertools.count()
        while True:
            for images, targets in loader:
                optimizer.param_groups[0]["lr"] = float(rates[next(step) % len(rates)])
                optimizer.zero_grad()
                loss = self._loss(self._model(images), targets)
                loss.backward()
                optimizer.step()
                yield loss.detach()

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """By the running averages, which DDP takes from rank 0."""
        model = self._model.module.eval()
        logits: np.ndarray = model(torch.from_numpy(images)).numpy()
        model.train()
        return logits


def _optimizer(model: torch.nn.Module, setting: Setting) -> torch.optim.Optimizer:
    options = setting.optimizer
    if options["name"] == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=options["momentum"], nesterov=options["nesterov"]
        )  # the lr is set before every step
    return torch.optim.Adam(
        model.parameters(), lr=0.1, betas=(options["beta1"], options["beta2"]), eps=options["epsilon"]
    )


if __name__ == "__main__":
    serve(WORK, DdpTraining, version=torch.__version__)
