"""What one process of several cannot measure is the same error on all of them: none is left waiting."""

import pytest
import torch
from support.worlds import in_world

from batchscale.errors import UsageError
from batchscale.measure.chunks import ChunkSums
from batchscale.measure.landscape.kept import KeptPoints
from batchscale.measure.landscape.points import measured_points


def refused(act):
    with pytest.raises(UsageError) as caught:
        act()
    return str(caught.value)


def summed(world, broken, error):
    """Three chunks of one example, the second of which cannot be computed."""

    def of_chunk(chunk):
        if chunk.start == broken:
            raise error
        return torch.ones(1)

    return refused(lambda: ChunkSums(3, 1, world).total(of_chunk, 1))


@pytest.mark.parametrize("size", [2, 4])
def test_a_chunk_that_cannot_be_computed_is_an_error_on_all(size):
    """On four processes one has no chunk at all, and would wait for sums that do not come."""
    for broken in (0, 2):
        assert in_world(size, summed, broken, UsageError("layer: none")) == ["layer: none"] * size


def test_one_example_that_does_not_fit_into_one_processes_memory_is_an_error_on_all():
    first, second = in_world(2, summed, 1, MemoryError())
    assert first == second
    assert first.startswith("--chunk=1: not even one example fits into memory (MemoryError)")


class Broken:
    """Has numbers at every point but one."""

    def at(self, point):
        if point == (2.0,):
            raise UsageError("no number there")
        return point


def measured_in(world):
    points = [(float(number),) for number in range(3)]
    return refused(lambda: measured_points([Broken], points, KeptPoints(None, "", 1), world, 1))


@pytest.mark.parametrize("size", [2, 4])
def test_a_point_that_cannot_be_measured_is_an_error_on_all(size):
    assert in_world(size, measured_in) == ["no number there"] * size
