"""What a product with the Hessian costs beside a gradient: CPU-seconds of both, in turn, as paired ratios; memory.

python benchmarks/hessian_product.py [RECIPE] [PAIRS] [EXAMPLES] [CHUNK] [VECTORS] [KEY=VALUE ...]

RECIPE (default fashion-mnist-cnn; BATCHSCALE_DATA names its data) at its first weights, over EXAMPLES (default 128) in
chunks of CHUNK (default 32), one thread. PAIRS (default 10) by turns in either order: the gradient once, then VECTORS
(default 1) products in one pass, counted each. Printed: the median of the ratios with its 90 % interval by order
statistics, of the Hessian and of the Gauss-Newton matrix, and the most memory that the process held.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from batchscale.bench.statistics import median_interval
from batchscale.build.inputs import load_data, make_normalizer
from batchscale.build.network import build_model
from batchscale.build.tasks import make_task
from batchscale.measure.objective import Objective
from batchscale.measure.stated import stated_set
from batchscale.recipe import load_recipe


def objective_of(name: str, examples: int, chunk: int, overrides: tuple[str, ...]) -> Objective:
    """The loss of a recipe at its first weights."""
    data = os.environ.get("BATCHSCALE_DATA")
    recipe = load_recipe(name, ["execution.device=cpu", *overrides])
    dataset = load_data(recipe, Path(data) if data else None)
    normalizer = make_normalizer(recipe, dataset, False, torch.device("cpu"))
    stated, task = stated_set(dataset.train, examples), make_task(recipe, dataset)
    return Objective(build_model(recipe, dataset), task, stated, normalizer, chunk=chunk)


def seconds(act: Callable[[], Any]) -> float:
    """CPU-seconds of a call."""
    start = time.process_time()
    act()
    return time.process_time() - start


def main(
    name: str = "fashion-mnist-cnn",
    pairs: str = "10",
    examples: str = "128",
    chunk: str = "32",
    vectors: str = "1",
    *overrides: str,
) -> None:
    """Time, and print."""
    f = objective_of(name, int(examples), int(chunk), overrides)
    rows = torch.randn(int(vectors), f.size, dtype=torch.float64)
    products = {"Hessian": f.hessian_products, "Gauss-Newton": f.gauss_newton_products}
    f.gradient()
    for matrix, product in products.items():
        product(rows)
        ratios, gradients = [], []
        for pair in range(int(pairs)):
            acts = {"gradient": f.gradient, "product": lambda product=product: product(rows)}
            order = ("gradient", "product") if pair % 2 else ("product", "gradient")
            spent = {kind: seconds(acts[kind]) for kind in order}
            ratios.append(spent["product"] / len(rows) / spent["gradient"])
            gradients.append(spent["gradient"])
        low, high = median_interval(ratios) or (min(ratios), max(ratios))
        print(
            f"{name}, {f.size} weights, {examples} examples in chunks of {chunk}: a gradient "
            f"{1000 * statistics.median(gradients):.0f} ms of CPU; {matrix} product / gradient, {vectors} together: "
            f"median {statistics.median(ratios):.2f}, 90 % {low:.2f} to {high:.2f} of {pairs} pairs",
            flush=True,
        )
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
