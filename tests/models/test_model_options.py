"""Options of nets that no net can be built from are refused by name, before anything is trained."""

from __future__ import annotations

import pytest

from batchscale.errors import RecipeError
from batchscale.models.faster_rcnn import faster_rcnn_resnet18
from batchscale.models.unet import unet


@pytest.mark.parametrize("option", ["width", "pyramid", "hidden", "anchor", "proposals", "sampled"])
def test_a_detector_refuses_an_option_of_0(option: str) -> None:
    with pytest.raises(RecipeError, match=f"model.options.{option}=0: must be 1 or more"):
        faster_rcnn_resnet18((1, 64, 64), 11, **{option: 0})


def test_a_detector_refuses_channels_that_group_norm_cannot_split() -> None:
    with pytest.raises(RecipeError, match=r"model\.options\.width=17: .*use a multiple of 8"):
        faster_rcnn_resnet18((1, 64, 64), 11, width=17)


@pytest.mark.parametrize("option", ["width", "levels"])
def test_a_unet_refuses_an_option_of_0(option: str) -> None:
    with pytest.raises(RecipeError, match=f"model.options.{option}=0: must be 1 or more"):
        unet((1, 32, 32), 11, **{option: 0})
