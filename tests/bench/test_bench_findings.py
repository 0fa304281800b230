"""The documents of benchmarks, those saved by earlier versions too, and the findings that are made of them."""

import json
from pathlib import Path

import pytest

from batchscale.bench.allreduce import measure
from batchscale.bench.documents import AllReduceDocument, DataDocument, StepDocument, read_document
from batchscale.bench.findings import findings_of, saved_findings
from batchscale.cli import main
from batchscale.errors import FolderError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
RATES = {
    "recipe", "minibatch", "rows", "ratios", "ratio_iqr", "not_measurable_now", "ratios_per_cpu_second",
    "ratio_iqr_per_cpu_second", "ratio_interval", "ratio_interval_per_cpu_second", "verdicts", "conditions", "notes",
}  # fmt: skip
KEYS = {
    StepDocument: RATES | {"processes", "best_documented_peer"},
    DataDocument: RATES | {"threads", "data", "best_peer"},
    AllReduceDocument: {"processes", "rows", "auto", "fit", "limit", "choice", "conditions", "notes"},
}


def holds(whole, part):
    """Whether every entry of a document stands in another one, however deep."""
    if isinstance(part, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return whole == part


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_saved_document_keeps_all_that_it_holds(path):
    document = read_document(path)
    assert set(document.model_dump()) == KEYS[type(document)]
    assert holds(findings_of(document).result, json.loads(path.read_text()))


@pytest.mark.parametrize("name", ["step", "data", "allreduce-W4"])
def test_every_number_of_a_row_stands_in_its_table(name):
    document = read_document(RESULTS / f"2026-11-21-{name}.json")
    findings = findings_of(document)
    (table,) = [table for table in findings.tables if table.title in ("Contenders", "Every algorithm at every size")]
    for row, cells in zip(document.rows, table.rows, strict=True):
        if name == "allreduce-W4":
            assert cells[:2] == (row.algorithm, row.bytes)
            assert cells[2:] == pytest.approx(
                [1e3 * row.seconds, 1e3 * row.iqr_seconds, row.bus_gigabytes_per_second], rel=1e-3
            )
        else:
            assert cells == (row.name, row.images_per_second, row.iqr, row.images_per_cpu_second)
    assert findings.environment == document.conditions
    assert findings.warnings[: len(document.notes)] == tuple(document.notes)


def test_one_document_is_its_own_findings_and_several_are_named(tmp_path):
    step = (RESULTS / "2026-11-21-step.json").read_text()
    (tmp_path / "a.json").write_text(step)
    alone, _ = saved_findings(tmp_path)
    assert alone == findings_of(read_document(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text(step)
    both, skipped = saved_findings(tmp_path)
    assert skipped == []
    assert both.command == (*alone.command, "&&", *alone.command)
    clause = alone.answer.removesuffix(".")
    assert both.answer == f"{clause}; {clause[:1].lower()}{clause[1:]}."
    assert [figure.title for figure in both.figures] == ["a: Images per second", "b: Images per second"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is not JSON"), ("[]", "is no result of bench"), ('{"rows": [], "ratios": {}}', "is no result of bench"),
     ('{"rows": 1, "ratios": {}, "processes": 2}', "is damaged: recipe: Field required")],
)  # fmt: skip
def test_what_is_no_document_says_why(tmp_path, content, reason):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FolderError, match=f"^{reason}$"):
        read_document(tmp_path / "a.json")


def test_the_command_prints_the_document_and_writes_it_with_its_figures(tmp_path, monkeypatch, capsys):
    findings = findings_of(read_document(RESULTS / "2026-11-21-allreduce-W2.json"))
    monkeypatch.setattr(measure, "bench_allreduce", lambda *arguments, **options: findings)
    out = tmp_path / "out"
    assert main(["bench", "allreduce", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == findings.result == json.loads((out / "allreduce.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["allreduce.json", "allreduce.png", "allreduce.svg"]
    assert main(["report", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "bench"
    assert findings.answer in (out / "report.html").read_text()
