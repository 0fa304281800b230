"""The document of bench frameworks as an answer, tables, figures and a page."""

import json

import pytest

from batchscale.bench.documents import Agreement, FrameworkRow, FrameworksDocument, read_document
from batchscale.bench.findings import findings_of, saved_findings
from batchscale.bench.frameworks.answer import score_changes
from batchscale.bench.frameworks.published import published_rows
from batchscale.bench.frameworks.series import with_efficiency
from batchscale.report.page import write


def row(name, processes, speed, score=None, series="weak"):
    return FrameworkRow(
        name=name, series=series, processes=processes, per_process=32, minibatch=32 * processes,
        examples_per_second=speed, iqr=1.0, examples_per_cpu_second=speed, seconds_per_epoch=1.0, score=score,
    )  # fmt: skip


def document(scores, better="lower", **entries):
    rows = [row(name, w, 100.0 * w + n, pair[w // 2]) for n, (name, pair) in enumerate(scores.items()) for w in (1, 2)]
    return FrameworksDocument(
        recipe="fashion-mnist-cnn", overrides=["data.train_images=640"], processes=[1, 2], minibatch=32,
        training_examples=640, epochs=3, score={"name": "error", "unit": "%", "better": better},
        agreement=[
            Agreement(name="jax", processes=1, optimizer="sgd", tolerance=1e-4, largest_difference=2.34e-7, losses=[1])
        ],
        rows=with_efficiency(rows), published=published_rows(), **{
            "conditions": {"examples": "images", "cores": 2, "cpu": "x", "torch": "2", "load_average": 1.0,
                           "date": "2026-11-30T00:00:00+0000"}, **entries,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "better", "verdict"),
    [
        ({"a": (8.0, 9.0), "b": (8.2, 9.4)}, "lower", "alike to 0.20: it is the minibatch, not the framework"),
        ({"a": (90.0, 89.0), "b": (90.0, 88.8)}, "higher", "alike to 0.20: it is the minibatch, not the framework"),
        ({"a": (8.0, 8.1), "b": (8.0, 9.4)}, "lower", "worse in every framework, but they differ by 1.30"),
        ({"a": (8.0, 8.1), "b": (8.0, 7.4)}, "lower", "not the same way in every framework, which differ by 0.70"),
        ({"a": (8.0, 7.9), "b": (8.0, 8.0)}, "lower", "none loses by it"),
    ],
)
def test_the_answer_says_whether_it_is_the_minibatch(scores, better, verdict):
    answer = findings_of(document(scores, better)).answer
    assert verdict in answer
    assert answer.startswith("Weak series, W = 2: b is fastest with 201 images/s before a 200; from a minibatch of 32")


def test_what_one_framework_lacks_is_no_change():
    rows = [row("a", 1, 1.0, 8.0), row("a", 2, 1.0, 9.0), row("b", 1, 1.0, 8.0), row("c", 2, 1.0, 8.0)]
    assert score_changes(rows) == ({"a": 1.0}, (32, 64))
    assert score_changes(rows[:1]) == ({}, (0, 0))


def test_efficiency_is_speed_over_w_times_that_of_one():
    rows = with_efficiency([row("a", 1, 100.0), row("a", 4, 300.0), row("b", 4, 300.0)])
    assert [r.efficiency for r in rows] == [1.0, 0.75, None]


def test_crowded_places_do_not_decide_who_is_fastest():
    crowded = document({"a": (8.0, 9.0)}, oversubscribed=[2])
    assert findings_of(crowded).answer.startswith("Weak series, W = 1: a is fastest with 100 images/s")
    assert findings_of(crowded).warnings[0] == "oversubscribed: 2 processes share 2 cores"


def test_a_saved_document_is_read_back_and_makes_a_page(tmp_path):
    found = findings_of(document({"a": (8.0, 9.0), "b": (8.0, None)}))
    (tmp_path / "frameworks.json").write_text(json.dumps(found.result))
    assert read_document(tmp_path / "frameworks.json") == document({"a": (8.0, 9.0), "b": (8.0, None)})
    assert saved_findings(tmp_path)[0].answer == found.answer
    page = write(tmp_path).path.read_text()
    for words in (
        "Measured",
        "The same work",
        "Published: U-Nets",
        "2.3e-07",
        "pytorch_horovod",
        "data.train_images=640",
    ):
        assert words in page


def test_published_rows_are_as_printed():
    rows = {(row["framework"], row["processes"]): row for row in published_rows()}
    assert len(rows) == 32
    assert rows["tensorflow_native", 14] == {
        "framework": "tensorflow_native", "processes": 14, "minibatch": 224, "seconds_per_epoch": 3.36,
        "efficiency": 0.7995, "loss": 0.0287, "score": 48.6,
    }  # fmt: skip
