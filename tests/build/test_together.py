"""Data that one process alone cannot open: all learn it."""

import pytest
from support.worlds import in_world

from batchscale.build import together
from batchscale.errors import DataError
from batchscale.recipe import load_recipe


def opened(world):
    def load_data(*_, **__):
        if world.rank == 1:
            raise DataError("train.idx: missing")
        return object()

    together.load_data = load_data
    with pytest.raises(DataError) as told, together.load_together(load_recipe("digits-cnn"), None, None, world):
        pass
    return str(told.value)


def test_data_missing_on_one_process_are_said_by_all():
    assert in_world(2, opened) == ["train.idx: missing"] * 2
