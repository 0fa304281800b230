"""The pages of how to add something hold the whole diff: applied to a copy of the source, it trains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT

PAGES = sorted((ROOT / "docs" / "do").glob("add-*.md"))
_STEP = re.compile(r"`(src/[^`]+)`:\n\n```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECK = """
import json, sys
import torch
import batchscale
from batchscale.data import load_dataset
from batchscale.models import named_model

assert batchscale.__file__.startswith(sys.argv[1]), batchscale.__file__
ONE_STEP = ["epochs=0.05", "minibatch.workers=4", "numerics.threads=1", "learning_rate.reference=0.01"]
ONE_STEP += ["learning_rate.scaling=none", "learning_rate.warmup={kind: none}", "learning_rate.decay={kind: none}"]
ONE_STEP += ["optimizer={name: signum, momentum: 0.5, weight_decay: 0}"]
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
first = [p.detach().clone() for p in net.parameters()]
steps = batchscale.train("digits-cnn", ONE_STEP, model=net, quiet=True).steps
moves = torch.cat([(p.detach() - f).flatten() for p, f in zip(net.parameters(), first)])

data = load_dataset("shapes")
pixels = data.train_images.double()
result = batchscale.train(
    "digits-cnn", ["data.name=shapes", "model.name=mlp", "epochs=10", "numerics.threads=1"], quiet=True
)
model = named_model("mlp", (1, 8, 8), 10)
print(json.dumps({
    "steps": steps, "moves": moves.abs().tolist(), "moments": [pixels.mean().item(), pixels.std(correction=0).item()],
    "normalised_by": [*batchscale.data.DATASETS["shapes"].mean, *batchscale.data.DATASETS["shapes"].std],
    "error": result.test_error_percent, "outputs": list(model(torch.zeros(3, 1, 8, 8)).shape),
    "weights": sum(p.numel() for p in model.parameters()),
}))
"""


def apply(page: Path, copy: Path) -> list[str]:
    """Make the changes that a page shows; the names of the files they touch."""
    files = []
    for name, kind, text in _STEP.findall(page.read_text(encoding="utf-8")):
        file = copy / name
        files.append(name)
        if kind == "python":
            assert not file.exists(), name
            file.write_text(text, encoding="utf-8")
            continue
        lines = text.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
        content = file.read_text(encoding="utf-8")
        assert content.count(old) == 1, f"{page.name}: {name} has changed"
        file.write_text(content.replace(old, new), encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The source with all that the pages add."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for page in PAGES:
        assert len(apply(page, folder)) == 2, "an addition is two files"
    return folder


def test_what_the_pages_add_trains(copy):
    """Signum's first step moves every weight by the lr; the shapes are what their source says; the net learns them."""
    command = [sys.executable, "-c", CHECK, str(copy / "src")]
    environment = {"PYTHONPATH": str(copy / "src"), "PATH": "/usr/bin:/bin", "HOME": str(copy)}
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    values = json.loads(printed.stdout)
    assert values["steps"] == 1
    assert values["moves"] == pytest.approx([0.01] * 650, rel=1e-4)
    assert values["normalised_by"] == pytest.approx(values["moments"], rel=1e-12)
    assert values["error"] < 25  # by chance: 46
    assert values["outputs"] == [3, 10]
    assert values["weights"] == 64 * 64 + 2 * 64 + 64 * 10 + 10


def test_what_the_pages_add_is_clean(copy):
    tools = Path(sys.executable).parent
    files = [copy / name for page in PAGES for name, _, _ in _STEP.findall(page.read_text(encoding="utf-8"))]
    for words in (["check"], ["format", "--check"]):
        options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        subprocess.run([tools / "ruff", *words, *options, *files], check=True, cwd=copy)
