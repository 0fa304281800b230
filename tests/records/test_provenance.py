"""What a run records of where it was computed, also from a source tree that is not installed."""

from __future__ import annotations

import json
from importlib import metadata

import batchscale
from batchscale.cli import main
from batchscale.records import provenance
from batchscale.records.provenance import environment, version_of

TINY = ("digits-cnn", "epochs=0.05", "numerics.threads=1")


def test_a_source_tree_that_is_not_installed_trains_and_records_its_version(tmp_path, monkeypatch):
    real = metadata.version

    def version(package):
        if package == "batchscale":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["train", *TINY, "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["versions"]["batchscale"] == batchscale.__version__
    assert record["decided"]["algorithm"]["machine"]["batchscale"] == batchscale.__version__
    assert version_of("batchscale") is None
    assert version_of("numpy") == real("numpy")


def test_the_cores_are_those_that_the_run_may_use(monkeypatch):
    monkeypatch.setattr(provenance, "available_cores", lambda: 3)
    assert environment()["cores"] == 3
