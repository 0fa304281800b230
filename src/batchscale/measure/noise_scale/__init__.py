"""The noise scale tr S / |G|^2 of a state, over a stated set of examples."""

from batchscale.measure.called import may_be_called

may_be_called(__name__)
