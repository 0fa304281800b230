"""Whether a step's update is taken: the host asks before it, or the device decides and the host learns it later.

A host that asks a GPU waits for all that it has launched, and the GPU is idle until it is given more. So there the host
goes by what it expects: all is finite, and backward reached the same parameters and batch norms as in the last step. It
launches the update, and the device takes it where that is so. A flag, once set, stays set: what is launched after it is
taken no more, until the host has read the step's row of news, one step later. Then the host takes back what it
has done since, and goes on as it does where it asks before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.aggregate.riders import Riders
from batchscale.comm import World
from batchscale.training.answer import Snapshot, StepAnswer, StepValues
from batchscale.training.mail import Mail
from batchscale.update.kept import Kept
from batchscale.update.optimizers import FindsInf, Optimizer

_MOST_SURPRISES = 3  # each costs a step or two: of layers that come and go in every step, the host asks


class Gate(Protocol):
    """What stands between the sum of a step and its update.

    Attributes:
        lag: steps whose rows may be unread while the next one runs.
    """

    lag: int

    def begin(self) -> Snapshot | None:
        """Before a step."""

    def opens(self, riders: Riders) -> bool:
        """After the sum: whether the host makes the update."""

    def update(self) -> AbstractContextManager[None]:
        """A context around all that the update changes."""

    def answer(self, riders: Riders, snapshot: Snapshot | None, finite: bool, recovers: bool) -> StepAnswer:
        """After the update: the step's row is on its way."""


class AtOnce:
    """The host asks whether all is finite, and makes the update where it is."""

    lag = 0

    def __init__(self, aggregator: FastAggregator | ExactAggregator) -> None:
        self._aggregator = aggregator
        aggregator.asks_later = False

    def begin(self) -> None:
        """Nothing is to be taken back."""

    def opens(self, riders: Riders) -> bool:
        """Asks."""
        return bool(riders.finite(self._aggregator.flat.buffer))

    def update(self) -> AbstractContextManager[None]:
        """Nothing to put back."""
        return nullcontext()

    def answer(self, riders: Riders, snapshot: Snapshot | None, finite: bool, recovers: bool) -> StepAnswer:
        """Its numbers, read when the loop wants them."""
        row, places = riders.answer()
        return StepAnswer(row.tolist, places, finite, recovers)


@dataclass(frozen=True)
class Changed:
    """What an update changes.

    Attributes:
        named: the optimizer that the recipe names.
        state: name -> live tensors of the optimizer, with what stands around it.
        weights: those that are trained.
        buffers: running averages in the model.
        others: name -> live tensors of the running averages' weights, of the loss scale.
        on_device: whether a tensor lies where the work is done, so that no host may know its numbers.
    """

    named: Optimizer
    state: Callable[[], Mapping[str, torch.Tensor]]
    weights: Sequence[torch.Tensor]
    buffers: Sequence[torch.Tensor]
    others: Callable[[], Mapping[str, torch.Tensor]]
    on_device: Callable[[torch.Tensor], bool]

    def kept(self) -> list[torch.Tensor]:
        """What is to be put back on the device: all but what the optimizer's own kernels leave alone."""
        gated = {id(t) for t in self.named.state().values()} if isinstance(self.named, FindsInf) else set()
        weights = [] if isinstance(self.named, FindsInf) else self.weights
        state = [t for t in self.state().values() if self.on_device(t) and id(t) not in gated]
        return [*self.buffers, *weights, *state]

    def on_host(self) -> list[torch.Tensor]:
        """What the host has in its own memory."""
        return [t for t in (*self.state().values(), *self.others().values()) if not self.on_device(t)]


class Late:
    """The device decides, and the host reads it one step later.

    Args:
        aggregator: whose sums are used.
        changed: by an update.
        mail: brings rows to the host.
    """

    lag = 1

    def __init__(self, aggregator: FastAggregator | ExactAggregator, changed: Changed, mail: Mail) -> None:
        self._aggregator, self._changed, self._mail = aggregator, changed, mail
        aggregator.asks_later = True
        buffer = aggregator.flat.buffer
        self._shut = torch.zeros((), dtype=torch.bool, device=buffer.device)
        self._found_inf = torch.zeros((), dtype=torch.float32, device=buffer.device)
        self._finite = self._facts = self._expected = buffer[:0]
        self._listed: list[float] = []
        self._kept: Kept | None = None
        self._on_host: list[torch.Tensor] = []
        self._surprises = 0
        if isinstance(changed.named, FindsInf):
            changed.named.found_inf = self._found_inf

    def begin(self) -> Snapshot:
        """Note what the host may have to take back."""
        if self._kept is None:  # looked up once, when all state is there
            self._kept, self._on_host = Kept(self._changed.kept()), self._changed.on_host()
        host = [(tensor, tensor.clone()) for tensor in self._on_host]
        return Snapshot(host, {name: tensor.clone() for name, tensor in self._aggregator.state().items()})

    def opens(self, riders: Riders) -> bool:
        """The device judges; the host makes the update by what it expects."""
        flat, expecting = self._aggregator.flat, riders.expecting
        if not self._listed:  # first of all: no batch norm was passed over, every parameter was used
            whole = sum(len(sums.whole) for sums in expecting)
            self._listed = [0.0] * whole + [1.0] * len(flat.used)
            self._expected = torch.cat([flat.used.new_zeros(whole), torch.ones_like(flat.used)])
        self._finite = riders.finite(flat.buffer)
        self._facts = torch.cat([*(sums.whole for sums in expecting), (flat.used > 0).to(flat.used.dtype)])
        fits = (self._facts == self._expected).all()
        self._shut.logical_or_((self._finite & fits).logical_not_())
        self._found_inf.copy_(self._shut)
        start = 0
        for sums in expecting:
            sums.expected[:] = self._listed[start : start + len(sums.whole)]
            start += len(sums.whole)
        flat.detach(self._listed[start:])
        return True

    @contextmanager
    def update(self) -> Iterator[None]:
        """Put back on the device what the update was not to change."""
        assert self._kept is not None
        self._kept.keep()
        yield
        self._kept.put_back(self._shut)

    def answer(self, riders: Riders, snapshot: Snapshot | None, finite: bool, recovers: bool) -> StepAnswer:
        """Sends [numbers | finite | shut | facts]."""
        told, places = riders.answer()
        flags = torch.stack([self._finite, self._shut]).to(told.dtype)
        return StepAnswer(self._mail.send(torch.cat([told, flags, self._facts])), places, False, False, snapshot)

    def take_back(self, values: StepValues, answers: Sequence[StepAnswer], riders: Riders) -> tuple[bool, Gate]:
        """Go back to before a step whose update was not taken.

        Args:
            values: of the step.
            answers: of it, and of the steps that were launched behind it.
            riders: of the run.

        Returns:
            Whether the step is to be repeated: it was another one than expected. And the gate of the next steps: the
            host asks from now on, where what it expects is mostly wrong.
        """
        repeats, snapshots = values.finite, [answer.snapshot for answer in answers if answer.snapshot is not None]
        for live, copy in snapshots[0].host:
            live.copy_(copy)
        # A step that is not finite is over, but for its update: its sums were made as where the host asks.
        for snapshot in snapshots[0 if repeats else 1 :][:1]:
            for name, tensor in self._aggregator.state().items():
                tensor.copy_(snapshot.sums[name])
        self._shut.zero_()
        if repeats:
            self._listed = list(values.facts)
            self._expected.copy_(torch.tensor(self._listed, dtype=self._expected.dtype))
            self._surprises += 1
        return repeats, self if self._surprises < _MOST_SURPRISES else self._asking(riders)

    def _asking(self, riders: Riders) -> AtOnce:
        for sums in riders.expecting:
            sums.expected.clear()
        if isinstance(self._changed.named, FindsInf):
            self._changed.named.found_inf = None
        return AtOnce(self._aggregator)


def gate_of(world: World, aggregator: FastAggregator | ExactAggregator, changed: Changed, asks: bool) -> AtOnce | Late:
    """How updates are decided on a device.

    Args:
        world: whose device it is.
        aggregator: whose sums are used.
        changed: by an update.
        asks: the update needs numbers of the step on the host.
    """
    if asks or world.device.type == "cpu":
        return AtOnce(aggregator)
    return Late(aggregator, changed, Mail(world))
