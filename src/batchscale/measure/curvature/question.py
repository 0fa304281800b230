"""What `measure curvature` asks."""

from __future__ import annotations

from typing import Literal

from batchscale.asking import flag
from batchscale.measure.question import PARTS, MeasureQuestion, PartNames


class Question(MeasureQuestion):
    """The curvature of a run's loss at one of its steps."""

    summary = "top eigenvalues, trace and spectral density of the loss's Hessian at a step"
    about = """\
The Hessian of the training loss at a run's weights, over a stated set of examples: its largest eigenvalues (Lanczos)
with their residuals, its trace (Hutchinson) with an interval, and with --density its spectrum (stochastic Lanczos
quadrature). Of the whole net, or of named parts of it. Several runs come on one page.

  batchscale measure curvature runs/mine --step 500 --examples 2048
  batchscale measure curvature runs/small runs/large --parts layer1,fc --density 30 --processes 2
"""
    most_runs = 8

    examples: int | None = flag(
        "of the stated set (default: 1024, at most all of the training set)", "M", default=None, ge=1
    )
    chunk: int | None = flag("examples of one pass (default: n of the run, at most 256)", "C", default=None, ge=1)
    eigenvalues: int = flag("largest ones that are computed", "K", default=3, ge=0, le=100)
    tolerance: float = flag("of an eigenvalue, relative", "SHARE", default=1e-3, gt=0, le=0.1)
    probes: int = flag("random vectors of the trace; 0: no trace", "R", default=10, ge=0, le=10_000)
    density: int = flag("Lanczos steps of the spectral density; 0: no density", "STEPS", default=0, ge=0, le=1000)
    density_probes: int = flag("random vectors of the spectral density", "R", default=3, ge=1, le=1000)
    parts: PartNames | None = PARTS
    gauss_newton: bool = flag("the Gauss-Newton matrix in place of the Hessian", default=False)
    batch_norm: Literal["averages", "recomputed"] = flag(
        "normalises by its running averages, or by averages recomputed over the examples", default="averages"
    )
    precision: Literal["run", "fp64"] = flag("of a pass: as the run's weights, or double", default="run")
    level: float = flag("of the trace's interval", "SHARE", default=0.9, ge=0.5, le=0.999)
    seed: int = flag("of the random vectors", "S", default=0, ge=0)
