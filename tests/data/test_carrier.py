"""Minibatches carried to a device: the same numbers as on the CPU, one pass at a time, no slot written too early."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.copies import LateCopies
from support.feeds import N, feed, images

from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import copies as copies_module
from batchscale.data.feed.carrier import Carrier
from batchscale.data.feed.copies import Copy, CudaCopies, PlainCopies, copies_of
from batchscale.data.feed.delivery import batches_ahead
from batchscale.data.feed.normalizer import Normalizer
from batchscale.data.feed.packing import Packing
from batchscale.placement import place_workers
from batchscale.structure import tensors

AUGMENTED = Augmentation(flip=True, padding=2)


def carried(late, steps, **how):
    """(labels, pixels) of every pass of some steps, in the order in which they are asked for."""
    part = feed(8, 3, range(2, 7), pass_workers=2, copies=late, **how)
    try:
        return [(batch.targets.clone(), batch.inputs.clone()) for step in steps for batch in part.passes(step)]
    finally:
        part.close()


def equal(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("augmentation", [Augmentation(), AUGMENTED])
@pytest.mark.parametrize("eager", [0.0, 0.4, 1.0])
def test_the_passes_are_those_of_the_cpu_and_no_slot_is_written_before_its_copies_are_done(augmentation, eager):
    late = LateCopies(eager)
    steps = [0, 1, 2, 3, 4, 7, 8, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert equal(carried(late, steps, augmentation=augmentation), carried(None, steps, augmentation=augmentation))
    late.finish()
    assert late.races == []


def test_examples_that_lie_on_the_device_give_the_same_passes():
    resident = TensorExamples(images(), torch.arange(N))
    for augmentation in (Augmentation(), AUGMENTED, Augmentation(flip=True)):
        late = LateCopies()
        passes = carried(late, range(6), augmentation=augmentation, resident=resident)
        assert equal(passes, carried(None, range(6), augmentation=augmentation))
        late.finish()
        assert late.races == []


@pytest.mark.parametrize("eager", [0.0, 0.4, 1.0])
def test_chunks_for_an_evaluation_are_those_of_the_cpu(eager):
    class Gaps(TensorExamples):
        """Not one of the examples 6 to 8 can be read."""

        def readable(self, part):
            return super().readable(slice(0, 0) if part.start == 6 else part)

    examples = Gaps(images(), torch.arange(N))
    normalizer = Normalizer([128.0], [64.0], torch.float32, torch.contiguous_format, torch.device("cpu"))
    chunks = [slice(start, start + 3) for start in range(0, N, 3)]

    def made(copies):
        batches = batches_ahead(examples.readable, chunks, normalizer, normalizer.device, copies)
        return [batch and (batch.targets.clone(), batch.inputs.clone()) for batch in batches]

    late = LateCopies(eager)
    carried, plain = made(late), made(None)
    assert carried.pop(2) is plain.pop(2) is None
    assert equal(carried, plain)
    late.finish()
    assert late.races == []


def test_a_pass_is_carried_at_once_and_the_one_after_it_is_begun_before_it_is_used():
    late = LateCopies()
    part = feed(8, 3, range(8), pass_workers=2, copies=late)
    passes = part.passes(0)
    assert len(passes) == 4
    assert late.log == []  # nothing is carried before a pass is taken
    for number in range(3):
        passes[number]
        assert late.log[-2:] == [("begin", number + 1), ("join", number)]
    passes[3]
    assert late.log[-1] == ("join", 3)  # and perhaps the next step's first pass was begun
    assert late.begun in (4, 5)
    part.close()


def test_slices_of_passes_carry_nothing_before_a_pass_is_taken_and_a_repeat_carries_again():
    late = LateCopies()
    part = feed(8, 3, range(8), pass_workers=2, copies=late)
    passes = part.passes(0)
    units = [passes[first : first + 1] for first in range(len(passes))]
    assert late.log == []
    first = [unit[0].inputs for unit in units]
    again = [unit[0].inputs for unit in units]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    part.close()


def test_floats_of_a_pass_that_nobody_uses_are_gone():
    """Never the floats of a whole step: the feed keeps none."""
    late = LateCopies()
    part = feed(8, 3, range(8), pass_workers=1, copies=late)
    for step in range(3):
        passes = part.passes(step)
        for number in range(len(passes)):
            inputs = weakref.ref(passes[number].inputs)
            assert inputs() is None
    part.close()


def test_passes_of_an_earlier_step_are_refused_once_the_next_is_asked_for():
    part = feed(8, 3, range(8), copies=LateCopies())
    earlier = part.passes(0)
    part.passes(1)
    with pytest.raises(RuntimeError, match="asked for another one"):
        earlier[0]
    part.close()


def test_the_memory_of_a_slot_is_used_again():
    late = LateCopies()
    part = feed(8, 3, range(8), pass_workers=2, copies=late)
    for step in range(12):
        list(part.passes(step))
    part.close()
    assert late.memories <= 3  # slots: one in use, one ready, one whose copies may still be read


def test_what_cannot_be_packed_leaves_its_slot_to_the_next():
    class Short(LateCopies):
        def memory(self, num_bytes):
            if not self.memories:
                self.memories += 1
                raise MemoryError
            return super().memory(num_bytes)

    carrier = Carrier(Short(), 1, lambda structure: structure)
    with pytest.raises(MemoryError):
        carrier.load([torch.ones(3)])
    assert torch.equal(carrier.load([torch.ones(3)])[0], torch.ones(3))


DTYPES = [torch.uint8, torch.int64, torch.bool, torch.float16, torch.float32, torch.float64]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_a_structure_comes_back_from_its_bytes(forms):
    """Any types, shapes, orders in memory; words stay as they are."""
    numbers = torch.Generator().manual_seed(0)
    columns = []
    for dtype, shape, turned in forms:
        tensor = torch.randint(0, 100, shape, generator=numbers).to(dtype)
        columns.append(tensor.permute(list(reversed(range(tensor.ndim)))) if turned else tensor)
    structure = ({"first": columns[0], "words": ["a", "b"]}, [tuple(columns[1:]), 7])
    packing = Packing.of(structure)
    packed = torch.zeros(packing.num_bytes + 256, dtype=torch.uint8)[256:]
    packing.pack(structure, packed)
    again = packing.unpack(packed)
    assert again[0]["words"] == ["a", "b"]
    assert again[1][1] == 7
    for tensor, original in zip(tensors(again), tensors(structure), strict=True):
        assert tensor.dtype == original.dtype
        assert torch.equal(tensor, original)
        assert tensor.stride() == torch.empty_like(original).stride()


class Recorded:
    """In the place of torch.cuda: notes what is called on streams, events and tensors, in order."""

    def __init__(self, log):
        self._log = log

    def Stream(self, device):
        return SimpleNamespace(name="copies", wait_event=lambda event: self._log.append("copies wait"))

    def Event(self, blocking):
        assert blocking
        return SimpleNamespace(
            record=lambda stream: self._log.append(f"event behind {stream.name}"),
            synchronize=lambda: self._log.append("host waits"),
        )

    def stream(self, stream):
        log = self._log

        class Within:
            def __enter__(self):
                log.append(f"on {stream.name}")

            def __exit__(self, *error):
                log.append(f"off {stream.name}")

        return Within()

    def current_stream(self, device):
        return SimpleNamespace(name="training", wait_event=lambda event: self._log.append("training waits"))


def test_order_of_calls_on_a_gpu(monkeypatch):
    """By torch's documented use; a stub, as no GPU is here."""
    log = []
    monkeypatch.setattr(copies_module.torch, "cuda", Recorded(log))
    target = SimpleNamespace(record_stream=lambda stream: log.append(f"used by {stream.name}"))
    source = SimpleNamespace(
        to=lambda device, non_blocking: (log.append(f"copy, host waits: {not non_blocking}"), target)[1]
    )
    copies = CudaCopies(torch.device("cuda", 0))
    copy = copies.begin(source)
    copies.join(copy)
    copies.wait(copy.event)
    assert log == [
        "on copies",
        "copy, host waits: False",
        "event behind copies",
        "off copies",
        "training waits",
        "used by training",
        "host waits",
    ]


def test_a_device_without_streams_copies_at_once():
    copies = copies_of(torch.device("meta"))
    assert isinstance(copies, PlainCopies)
    copy = copies.begin(copies.memory(7))
    assert copy.bytes.is_meta
    assert isinstance(copy, Copy)
    copies.join(copy)
    copies.wait(copy.event)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_is_brought_the_same_examples(processes):
    def stream(late):
        labels = []
        parts = [feed(8, 3, r, copies=late()) for r in place_workers(8, processes)]
        for step in range(5):
            labels += [batch.targets for part in parts for batch in part.passes(step)]
        for part in parts:
            part.close()
        return torch.cat(labels)

    assert torch.equal(stream(LateCopies), stream(lambda: None))
