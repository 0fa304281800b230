"""What a plan reads of runs, studies and benchmarks: their speeds, and their critical minibatches."""

import json

import pytest
from support.critical import branched, noise, whole_run, write_findings, write_run

from batchscale.cli.plan.goal import goal_of
from batchscale.cli.plan.points import points_of
from batchscale.cost.planning.question import Trained
from batchscale.errors import DataError, UsageError
from batchscale.recipe import load_recipe

TRAINED = Trained("toy", 64, 32, 10_000)
RESULT = {
    "status": "done", "recipe": "toy", "folder": "", "test_error_percent": None, "test_error_median_last_5": None,
    "test_loss": None, "train_loss": None, "steps": 10, "epochs": 1.0, "images_per_second": 1000.0, "wall_seconds": 1.0,
    "weights_sha256": None, "processes": 2, "workers": 8, "per_worker": 16,
}  # fmt: skip
STEP = {
    "recipe": "toy", "processes": 2, "minibatch": {"workers": 8, "per_worker": 16, "images": 128}, "ratios": {},
    "rows": [{"name": name, "images_per_second": speed, "images_per_cpu_second": 1.0, "iqr": 0.0}
             for name, speed in (("ceiling", 3000.0), ("batchscale", 1000.0))],
    "conditions": {},
}  # fmt: skip


def run_folder(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT | changes))
    return folder


def measured(*paths):
    return [(p.devices, p.per_device, p.seconds) for p in points_of(paths, TRAINED, 8)]


def test_a_run_a_study_and_a_benchmark_of_one_speed_give_one_point(tmp_path):
    expected = (2, 64, pytest.approx(0.128))  # 128 images at 1,000 a second
    assert measured(run_folder(tmp_path / "run")) == [expected]
    document = tmp_path / "step.json"
    document.write_text(json.dumps(STEP))
    assert measured(document) == [expected]
    run_folder(tmp_path / "study" / "runs" / "a")
    run_folder(tmp_path / "study" / "runs" / "b", processes=4)
    run_folder(tmp_path / "study" / "runs" / "c", status="failed", images_per_second=None)
    assert measured(tmp_path / "study") == [expected, (4, 32, expected[2])]


def test_what_holds_no_speed_is_refused_by_name(tmp_path):
    run = run_folder(tmp_path / "run", images_per_second=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "allreduce.json").write_text(json.dumps({"processes": 2, "rows": [], "auto": [], "limit": [],
                                                         "conditions": {}}))  # fmt: skip
    (tmp_path / "other.json").write_text("{}")
    for path, sentence in (
        (run, "this run measured no speed"),
        (tmp_path / "empty", "holds no run that has ended"),
        (tmp_path / "allreduce.json", "says nothing of a step"),
        (tmp_path / "other.json", "is no result of bench; give a document of bench step"),
    ):
        with pytest.raises(DataError, match=sentence) as refused:
            measured(path)
        assert str(path) in str(refused.value)


def goal(text):
    return goal_of(str(text), None, TRAINED, load_recipe("digits-cnn", ["epochs=7"]))


@pytest.mark.parametrize(
    ("kind", "result", "critical"),
    [
        ("steps-to-target", whole_run(4000, 3000, 6000), (4000, 3000, 6000)),
        ("branch", branched((100, 500, 400, 700)), (500, 400, 700)),
        ("measure-noise-scale", noise(900, 600, None) | {"step": 5, "resolved": True}, (900, 600, None)),
    ],
)
def test_a_folder_says_the_critical_minibatch_and_the_recipe_the_epochs(tmp_path, kind, result, critical):
    stated = goal(write_findings(tmp_path / "a", kind, result))
    assert (stated.critical.value, stated.critical.low, stated.critical.high) == pytest.approx(critical)
    assert (stated.minibatch, stated.epochs) == (2048, 7)
    assert stated.epochs_at(2048 + critical[0]) == pytest.approx(7 * (1 + critical[0] / (2048 + critical[0])))


def test_a_run_that_measured_its_noise_scale_says_it_too(tmp_path):
    assert goal(write_run(tmp_path / "a", noise(800, 500, 1500))).critical.value == 800


def test_what_is_not_resolved_is_refused(tmp_path):
    folder = write_findings(tmp_path / "a", "steps-to-target", whole_run(None, 3000, None))
    with pytest.raises(DataError, match=r"not resolved \(above 3,000\)"):
        goal(folder)
    with pytest.raises(UsageError, match="says nothing of the critical minibatch"):
        goal(write_findings(tmp_path / "b", "warmup", {}))


def test_without_a_source_nothing_is_known_of_other_minibatches_but_of_a_net_that_was_published():
    recipe = load_recipe("digits-cnn")
    alone = goal_of(None, None, TRAINED, recipe)
    assert alone.knows(2048) and not alone.knows(4096)  # noqa: PT018
    published = goal_of(None, None, TRAINED, load_recipe("imagenet-resnet50-1h"))
    assert published.knows(4096)
    assert published.epochs == 90
