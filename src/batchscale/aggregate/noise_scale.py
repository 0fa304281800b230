"""The noise scale in anybody's loop: plain torch, gradient accumulation, DistributedDataParallel.

A unit is a backward pass of one process. What it adds to the gradient is heard by hooks on the weights, before it is
added to what is there, and before DDP reduces it; so nothing is copied, and the loop stays as it is.

Cost: of every measured step one reading of each pass's gradient and of the sum in float64, and of DDP one all-reduce of
three numbers; of the others one empty call a weight and pass.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from batchscale.errors import UsageError
from batchscale.noise_scale import LEVEL, NoiseBlocks, NoiseEstimate, StepNoise, step_noise


class NoiseScale:
    """Measures the noise scale tr S / |G|^2 of a training loop that is not batchscale's.

    tr S = B^2 (sum_i |c_i|^2 / b_i - |c|^2 / B) / (u - 1),   |G|^2 = |c|^2 - (tr S / B) (1 - B / N)

    c_i is what the i-th of u backward passes of b_i examples adds to c, the gradient of the mean loss over all B. So a
    pass's loss must be its examples' summed loss divided by B (of accumulation: mean / passes, where these are equal);
    with DDP, which averages over W processes, by B / W. All trained weights count, a shared one once.

    Args:
        model: of the loop; all processes of a DistributedDataParallel model measure together.
        minibatch: B, the examples of one update, over all passes and processes.
        every: so many updates, the last of them is measured.
        population: N, where an epoch shows each of N examples once; None: drawn with replacement.

    Attributes:
        blocks: what was measured so far.

    Raises:
        UsageError: passes that make up another minibatch, or a single one.

    Examples:
        >>> model = torch.nn.Linear(4, 1)
        >>> noise = batchscale.NoiseScale(model, minibatch=8)
        >>> for step in range(40):
        ...     model.zero_grad()
        ...     for part in torch.randn(8, 4).split(4):  # gradient accumulation: two passes of four
        ...         (model(part).square().mean() / 2).backward()
        ...         noise.passed(examples=4)
        ...     _ = noise.step()  # before clipping and the optimizer's step
        >>> noise.blocks.steps, noise.estimate().trace > 0
        (40, True)

    Source: McCandlish et al. 2018, appendix A.1.
    """

    def __init__(self, model: nn.Module, minibatch: int, every: int = 1, population: int | None = None) -> None:
        for name, value in (("minibatch", minibatch), ("every", every), ("population", population)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"NoiseScale: {name}={value!r}: must be a whole number of at least 1")
        if population is not None and population < minibatch:
            raise UsageError(
                f"NoiseScale: population={population}: holds no minibatch={minibatch} drawn without replacement; give "
                f"the number of training examples, or leave population out"
            )
        self.blocks = NoiseBlocks()
        self._minibatch, self._every, self._population = minibatch, every, population
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        if not self._weights:
            raise UsageError("NoiseScale: the model has no weights that are trained; give the one that the loop trains")
        self._group = model.process_group if isinstance(model, DistributedDataParallel) else None
        self._processes = 1 if self._group is None else dist.get_world_size(self._group)
        self._updates = 0
        device = self._weights[0].device
        self._square = torch.zeros((), dtype=torch.float64, device=device)  # of the pass at hand
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # passes, sum |c_i|^2 / b_i, examples
        self._heard: set[int] = set()
        self._hooks = [weight.register_hook(self._hook(number)) for number, weight in enumerate(self._weights)]  # type: ignore[no-untyped-call]

    @property
    def _due(self) -> bool:
        return (self._updates + 1) % self._every == 0

    def _hook(self, number: int):  # type: ignore[no-untyped-def]
        def hear(gradient: torch.Tensor) -> None:
            if self._due:
                if number in self._heard:
                    raise UsageError(
                        "NoiseScale: a second backward pass before the first was told; call passed(examples=...) after "
                        "every loss.backward()"
                    )
                self._heard.add(number)
                self._square += torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64).square()

        return hear

    def passed(self, examples: int) -> None:
        """A backward pass has ended.

        Args:
            examples: b_i, that its loss was of.

        Raises:
            UsageError: none has, or of no examples.
        """
        if not self._due:
            return
        if not self._heard:
            raise UsageError(
                "NoiseScale: passed(...) without a backward pass; call it after loss.backward(), with gradients of the "
                "model that it was made for"
            )
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise UsageError(f"NoiseScale: passed(examples={examples!r}): must be a whole number of at least 1")
        one = torch.ones_like(self._square)
        self._sums += torch.stack([one, self._square / (examples * self._processes**2), one * examples])
        self._square.zero_()
        self._heard.clear()

    @torch.no_grad()
    def step(self, loss_scale: float = 1.0) -> StepNoise | None:
        """All passes of an update have ended: call it before the gradient is unscaled, clipped, and used.

        Args:
            loss_scale: of the losses, as a GradScaler's ``get_scale()``; taken back.

        Returns:
            |G|^2 and tr S of this update alone, each without bias; None where it is not measured or not finite.

        Raises:
            UsageError: the passes make up another minibatch than was told, or there was a single one.
        """
        due, self._updates = self._due, self._updates + 1
        if not due:
            return None
        if self._group is not None:
            dist.all_reduce(self._sums, group=self._group)
        passes, squares, examples = self._sums.tolist()
        self._sums.zero_()
        untold = len(self._heard)
        self._heard.clear()
        self._square.zero_()
        self._check(int(passes), int(examples), untold > 0)
        norms = [torch.linalg.vector_norm(w.grad, dtype=torch.float64) for w in self._weights if w.grad is not None]
        whole = float(torch.stack(norms).square().sum()) / loss_scale**2
        noise = step_noise(int(passes), squares / loss_scale**2, whole, self._minibatch, self._population)
        if not all(map(math.isfinite, noise)):
            return None
        self.blocks.add(noise)
        return noise

    def _check(self, passes: int, examples: int, untold: bool) -> None:
        where = f"update {self._updates}"
        if untold:
            raise UsageError(
                f"NoiseScale: the last backward pass of {where} was not told; call passed(examples=...) after every "
                f"loss.backward()"
            )
        if examples != self._minibatch:
            raise UsageError(
                f"NoiseScale: minibatch={self._minibatch}: the passes of {where} held {examples} examples together "
                f"({passes} over {self._processes} processes); give minibatch={examples}, or tell each pass its own"
            )
        if passes < 2:
            raise UsageError(
                f"NoiseScale: {where} had one backward pass on one process: no second gradient; accumulate the "
                f"minibatch over two passes (each loss / 2), or train with two processes"
            )

    def estimate(self, level: float = LEVEL) -> NoiseEstimate | None:
        """The noise scale over all measured updates, with its interval over blocks of ten; None before the first.

        Args:
            level: of the interval.

        Raises:
            UsageError: a level that is no share of 1.
        """
        if not 0 < level < 1:
            raise UsageError(f"NoiseScale: level={level}: must lie between 0 and 1; use for example 0.9")
        return self.blocks.estimate(level)

    def close(self) -> None:
        """Take the hooks off the weights."""
        for hook in self._hooks:
            hook.remove()
