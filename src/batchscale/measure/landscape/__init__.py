"""The loss over a line or a plane of weights: around runs, or from one run to another."""

from batchscale.measure.called import may_be_called

may_be_called(__name__)
