"""The table of a net: shipped, kept, or counted once; never by torch where it is shipped."""

import subprocess
import sys

import pytest

from batchscale.build import net_counts
from batchscale.cli.nets import net_of
from batchscale.errors import DataError, RecipeError
from batchscale.recipe import load_recipe


@pytest.fixture
def counted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, count = [], net_counts.count_net
    monkeypatch.setattr(net_counts, "count_net", lambda *arguments: calls.append(1) or count(*arguments))
    return calls


def test_another_net_is_counted_once_and_kept(counted, tmp_path, capsys):
    recipe = load_recipe("digits-scenes-unet", ["model.options.width=4", "model.options.levels=2"])
    first, second = net_of(recipe), net_of(recipe)
    assert len(counted) == 1
    assert first.as_json() == second.as_json()
    assert "once" in capsys.readouterr().err
    (kept,) = (tmp_path / "batchscale" / "nets").iterdir()
    kept.write_text("{}")
    assert net_of(recipe).as_json() == first.as_json()  # a damaged one is counted anew
    assert len(counted) == 2


def test_no_place_to_keep_it_is_no_error(counted, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert net_of(load_recipe("digits-cnn", ["data.name=mnist"])).shape == (1, 28, 28)


def test_what_does_not_change_a_layer_does_not_change_its_table(counted):
    changed = ["seed=7", "minibatch.workers=3", "precision=bf16", "learning_rate.reference=0.3", "epochs=1"]
    assert net_of(load_recipe("digits-cnn", changed)) is net_of(load_recipe("digits-cnn"))
    assert not counted


def test_data_whose_shape_is_not_known_must_be_there(capsys):
    with pytest.raises((DataError, RecipeError)):
        net_of(load_recipe("own"))
    assert capsys.readouterr().err == ""  # nothing is counted


def test_a_shipped_table_is_read_without_torch():
    code = (
        "import sys; from batchscale.cli.nets import net_of; from batchscale.recipe import load_recipe\n"
        "from batchscale.cost.clusters.cluster import read_cluster\n"
        "from batchscale.cost.step.step_time import step_time\n"
        "net = net_of(load_recipe('imagenet-resnet50-1h'))\n"
        "times = step_time(net, read_cluster('dgx-a100'), [8, 64, 4096], 256, precision='tf32')\n"
        "assert times.total[-1] > times.total[0]\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
