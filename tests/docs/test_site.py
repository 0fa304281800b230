"""The pages build as `make docs` does it: strictly, so that a warning is an error."""

import re
import subprocess
import sys

from support.pages import ROOT

import batchscale


def test_the_pages_build_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr
    python = (tmp_path / "lookup" / "python" / "index.html").read_text(encoding="utf-8")
    homes = set(re.findall(r'id="(batchscale\.[\w.]+)"', python))
    assert {home.rsplit(".", 1)[1] for home in homes} >= set(batchscale.__all__)
    entries = (tmp_path / "lookup" / "recipe-entries" / "index.html").read_text(encoding="utf-8")
    assert "<code>learning_rate.warmup.start</code>" in entries
