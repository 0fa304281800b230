"""A warning where an evaluation pass holds very much; how many examples a pass may have, stays the recipe's."""

import pytest

from batchscale.build.memory import evaluation_warning
from batchscale.recipe import load_recipe


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 28, 28), (64,), ()])
def test_small_examples_are_no_matter(shape):
    assert evaluation_warning(500, 50_000, shape, "images") is None


def test_big_photographs_are_told_with_a_number_that_fits():
    warning = evaluation_warning(500, 5_000, (3, 1_000, 2_000), "images")
    assert warning == (
        "an evaluation pass of 500 images of 3x1000x2000 takes up to 12.0 GB before the network computes anything; "
        "numerics.evaluation_chunk=83 takes 2 GB at most"
    )
    assert 83 * 4 * 3 * 1_000 * 2_000 <= 2e9 < 84 * 4 * 3 * 1_000 * 2_000
    assert evaluation_warning(83, 5_000, (3, 1_000, 2_000), "images") is None
    assert evaluation_warning(500, 83, (3, 1_000, 2_000), "images") is None  # there are no more


def test_the_default_stays():
    """Another chunk adds up the loss in other parts, so runs on disk would not go on with the same bits."""
    assert load_recipe("digits-cnn").numerics.evaluation_chunk == 500
