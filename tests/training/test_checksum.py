"""The checksum of weights on a device: every bit and every place counts, no layout and no order of additions."""

import pytest
import torch
from support.crossings import META, TO_HOST, Crossings

from batchscale.training import checksum
from batchscale.training.checksum import tensors_checksum


def tensors():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-9, 9, (7,), generator=generator)
    return [torch.randn(3, 4, 5, 6, generator=generator), whole, torch.tensor(3), whole > 0, torch.zeros(0)]


def by_hand(of_tensors):
    """In whole numbers of Python."""
    words = []
    for tensor in of_tensors:
        plain = tensor.contiguous().reshape(-1)
        words += (plain.view(torch.uint8) if plain.dtype == torch.bool else plain.view(torch.int32)).tolist()
    return f"{sum((2 * place + 1) * word for place, word in enumerate(words)) % 2**64:016x}"


def test_it_is_the_sum_of_bits_times_odd_numbers(monkeypatch):
    assert tensors_checksum(tensors()) == by_hand(tensors())
    assert tensors_checksum([]) == "0" * 16
    whole = tensors_checksum(tensors())
    monkeypatch.setattr(checksum, "_CHUNK", 7)
    assert tensors_checksum(tensors()) == whole


def test_every_flipped_bit_shows():
    straight, flipped = tensors_checksum(tensors()), tensors()
    for bit in range(32):
        flipped[0].view(torch.int32)[1, 2, 3, 4] ^= 1 << bit if bit < 31 else -(1 << 31)
        assert tensors_checksum(flipped) != straight
        flipped[0].view(torch.int32)[1, 2, 3, 4] ^= 1 << bit if bit < 31 else -(1 << 31)
    assert tensors_checksum(flipped) == straight


@pytest.mark.parametrize("places", [(0, 1), (0, 359)])
def test_two_numbers_exchanged_show(places):
    a, b = places
    exchanged = tensors()
    flat = exchanged[0].view(-1)
    flat[[a, b]] = flat[[b, a]]
    assert tensors_checksum(exchanged) != tensors_checksum(tensors())


def test_no_layout_shows():
    last = tensors()
    last[0] = last[0].to(memory_format=torch.channels_last)
    assert tensors_checksum(last) == tensors_checksum(tensors())


def test_one_number_crosses_to_the_host():
    with Crossings() as crossings:
        tensors_checksum([tensor.to(META) for tensor in tensors()[:3]])
    assert [n for (kind, _), n in crossings.counts.items() if kind == TO_HOST] == [1]
