"""The curvature of the loss at a state's weights: top eigenvalues, trace and spectral density of its Hessian."""

from batchscale.measure.called import may_be_called

may_be_called(__name__)
