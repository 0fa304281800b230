"""bench step on other tasks than classification: the peers' plain losses are the task's, the page has its words."""

import pytest
import torch

from batchscale.bench.assignment import Assignment
from batchscale.bench.documents import StepDocument
from batchscale.bench.findings import findings_of
from batchscale.bench.table import as_table
from batchscale.build.tasks import make_task
from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe

_SMALL = ["model.options={width: 2, levels: 2}", "data.train_images=40"]


def _assignment(recipe: str, *overrides: str) -> Assignment:
    return Assignment(load_recipe(recipe, overrides).model_dump(mode="json"), None, "", "", 1, 1)


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
def test_a_peer_has_the_loss_and_the_gradient_of_the_task(kind: str) -> None:
    assignment = _assignment("digits-scenes-unet", *_SMALL, f"loss.kind={kind}")
    task, model = make_task(assignment.recipe, assignment.dataset), assignment.model().double()
    inputs, masks = assignment.normalised(16)
    gradients = []
    for loss in (
        task.losses(model(inputs.double()), masks).mean(),
        assignment.mean_loss(model(inputs.double()), masks),
    ):
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, ours, rtol=1e-10, atol=1e-12)


def test_a_binary_loss_too() -> None:
    assignment = _assignment("digits-scenes-unet", *_SMALL)
    binary = load_recipe("nuclei-unet")
    from batchscale.bench.losses import mean_loss
    from batchscale.task.segmentation import Segmentation

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 5, 5, generator=generator, dtype=torch.float64)
    masks = torch.randint(2, (3, 5, 5), generator=generator)
    task = Segmentation(2, loss="binary")
    torch.testing.assert_close(mean_loss(binary, task)(logits, masks), task.losses(logits, masks).mean())
    assert assignment.task.examples == "images"


def test_the_recipe_s_own_optimizer_is_torch_s() -> None:
    optimizer = _assignment("digits-scenes-unet", *_SMALL).optimizer([torch.nn.Parameter(torch.zeros(2))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert isinstance(_assignment("digits-cnn").optimizer([torch.nn.Parameter(torch.zeros(2))]), torch.optim.SGD)


def test_a_loss_of_a_whole_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assignment = _assignment("digits-scenes-unet", *_SMALL)
    monkeypatch.setattr(type(assignment.task), "unit", "worker")
    with pytest.raises(RecipeError, match="task=segmentation: bench step compares loops over tensors"):
        assignment.check()


def test_the_words_are_of_the_task() -> None:
    content = {
        "recipe": "topics", "processes": 1, "minibatch": {"workers": 1, "per_worker": 4, "images": 4},
        "rows": [{"name": "batchscale", "images_per_second": 5.0, "images_per_cpu_second": 4.0, "iqr": 1.0}],
        "ratios": {"to_ceiling": 0.9}, "ratio_iqr": {"to_ceiling": 0.01}, "ratios_per_cpu_second": {"to_ceiling": 0.9},
        "conditions": {
            "date": "", "cpu": "", "cores": 2, "load_average": 1.0, "torch": "", "lightning": "", "accelerate": "",
            "rounds": 2, "steps_per_block": {}, "ceiling": {"memory_format": "contiguous", "micro_batch": 4},
            "micro_batch": 4, "threads": 1, "examples": "sequences",
        },
    }  # fmt: skip
    document = StepDocument.model_validate(content)
    words = as_table(document.model_dump(mode="json")) + findings_of(document).model_dump_json()
    assert "4 sequences a step" in words
    assert "sequences/CPU-s" in words
    assert "images/s" not in words
