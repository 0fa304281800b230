"""Entries for images beside a text are refused; none is passed over in silence."""

from __future__ import annotations

import pytest

from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe


@pytest.mark.parametrize("change", ["data.masks=instances", "data.classes=3"])
def test_an_entry_for_images_is_refused_of_a_text(change: str) -> None:
    with pytest.raises(RecipeError, match=change.split("=")[0] + " is for images, and data.name=topics is a text"):
        load_recipe("topics-transformer", [change])
