"""Products with the Hessian and the Gauss-Newton matrix beside an independent library's, curvlinops'."""

import pytest
import torch
from torch import nn

from batchscale.measure.own import own_objective


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # which curvlinops' own needs still call
def test_products_are_those_of_curvlinops():
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 4)).double()
    inputs, labels = torch.randn(10, 1, 8, 8, dtype=torch.float64), torch.arange(10) % 4
    f = own_objective(net, (inputs, labels), chunk=3)
    vector = torch.randn(f.size, dtype=torch.float64)
    batches = [(inputs[:6], labels[:6]), (inputs[6:], labels[6:])]
    pairs = ((HessianLinearOperator, f.hessian_product), (GGNLinearOperator, f.gauss_newton_product))
    for operator, product in pairs:
        matrix = operator(net, nn.CrossEntropyLoss(), list(net.parameters()), batches, check_deterministic=False)
        torch.testing.assert_close(product(vector), (matrix @ vector).detach(), rtol=1e-9, atol=1e-12)
