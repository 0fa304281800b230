"""The sharpness of a loss around its weights: Keskar's, and the adaptive form."""

from batchscale.measure.called import may_be_called

may_be_called(__name__)
