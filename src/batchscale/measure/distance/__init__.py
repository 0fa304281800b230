"""How far a run's weights have moved from the initial ones."""

from batchscale.measure.called import may_be_called

may_be_called(__name__)
