"""The eigenvalues by which a minibatch grew, as a figure of its run's page."""

from batchscale.report.measured_figures import decided_figures


def test_eigenvalues_of_decisions_are_drawn_with_their_residuals_and_what_they_were_compared_to():
    rows = [
        {"epoch": 1.0, "eigenvalue": 8.0, "residual": 0.5, "reference_eigenvalue": 8.0, "passes": False},
        {"epoch": 2.0, "eigenvalue": None, "residual": None, "reference_eigenvalue": 8.0},
        {"epoch": 3.0, "eigenvalue": 3.0, "residual": 0.25, "reference_eigenvalue": None},
    ]
    (figure,) = decided_figures(rows)
    measured, compared = figure.series
    assert (measured.x, measured.y) == ((1.0, 2.0, 3.0), (8.0, None, 3.0))
    assert (measured.low, measured.high) == ((7.5, None, 2.75), (8.5, None, 3.25))
    assert (compared.x, compared.y) == ((1.0, 2.0), (8.0, 8.0))


def test_decisions_by_something_else_have_none():
    assert decided_figures([]) == []
    assert decided_figures([{"epoch": 1.0, "noise_scale": 30.0}, "damaged"]) == []
