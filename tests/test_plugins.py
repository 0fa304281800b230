"""Plugins: used under their names by commands, studies and Python, in every process; each mistake is one line."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.commands import refused
from support.plugins import EXAMPLE, tables_put_back, write_plugin
from support.worlds import in_processes

import batchscale
from batchscale import members, plugins
from batchscale.cli import main
from batchscale.errors import RecipeError, UsageError
from batchscale.members import loading
from batchscale.recipe import dump_recipe, load_recipe, recipe_from
from batchscale.records.command import repetition

SMALL = (
    "epochs=2", "minibatch.workers=4", "minibatch.per_worker=8", "learning_rate.decay={kind: none}",
    "numerics.threads=1", "data.name=example_stripes", "model.name=example_mlp",
)  # fmt: skip
STAR = "execution.aggregation.algorithm=example_star"
HALF = "optimizer={name: example_sgd, weight_decay: 0, factor: 0.5}"
PLAIN = ("optimizer={name: sgd, momentum: 0, nesterov: false, weight_decay: 0}", "learning_rate.reference=0.00625")
"""HALF by formula: half the factor is half the lr, to the bit; digits-cnn's lr is 0.0125."""


@pytest.fixture(autouse=True)
def _alone():
    with tables_put_back():
        yield


@pytest.fixture
def example():
    sys.path.insert(0, str(EXAMPLE / "src"))
    loading.load(["batchscale_example"])


def command(*words, python=sys.executable, **variables):
    """A command in a process of its own; its standard output."""
    environment = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", **variables}
    return subprocess.run(
        [python, "-m", "batchscale", *words],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    ).stdout


def check_run(folder, version):
    """That a run used the example, in every process, and says so."""
    environment = json.loads((folder / "environment.json").read_text())
    package = "batchscale-example" if version else None
    assert environment["plugins"] == [{"name": "batchscale_example", "distribution": package, "version": version}]
    assert [name for _, name in environment["decided"]["algorithm"]["limits"]] == ["example_star"]
    return json.loads((folder / "result.json").read_text())["weights_sha256"]


def test_a_module_named_for_the_command_is_used_in_all_its_processes(tmp_path, example, capsys):
    out, path = tmp_path / "run", str(EXAMPLE / "src")
    words = ["train", "digits-cnn", *SMALL, HALF, STAR, "--exact", "--out", str(out)]
    command(*words, "--processes", "2", "--plugin", "batchscale_example", PYTHONPATH=path)
    by_formula = batchscale.train("digits-cnn", [*SMALL, *PLAIN, "numerics.exact=true"], quiet=True)
    assert check_run(out, None) == by_formula.weights_sha256
    with tables_put_back():
        loading._loaded.clear()
        loading._complete_for.clear()
        os.environ.pop(loading.VARIABLE)
        for table in (members.MODELS, members.DATASETS):
            for name in [name for name in table._homes if name.startswith("example")]:
                del table[name]
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        again = refused(capsys, "train", str(out / "recipe.yaml"), "--out", str(out), "--resume")
        assert "data.name='example_stripes': input should be 'digits'" in again
        assert "or one of a plugin (give --plugin MODULE" in again
        assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_an_installed_package_needs_no_flag(tmp_path):
    """Built and installed without a network, into an environment that sees this one's packages."""
    uv = [sys.executable, "-m", "uv"]
    source, python = tmp_path / "source", tmp_path / "env" / "bin" / "python"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], check=True)
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    folders = [folder for folder in sys.path if folder.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (packages / "these.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    install = [*uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python"]
    subprocess.run([*install, str(python), str(source)], check=True)

    out = tmp_path / "run"
    words = ["train", "digits-cnn", *SMALL, HALF, STAR, "--exact", "--processes", "2", "--out", str(out)]
    command(*words, python=str(python))
    ways = ["--way", f"half: {HALF} {STAR}", "--way", f"plain: {PLAIN[0]} {PLAIN[1]}"]
    study = ["study", "grid", "digits-cnn", *SMALL, "numerics.exact=true", *ways, "--seeds", "1", "--json"]
    rows = json.loads(command(*study, "--out", str(tmp_path / "study"), python=str(python)))["rows"]
    digests = [json.loads(file.read_text())["weights_sha256"] for file in (tmp_path / "study").rglob("result.json")]
    assert len(rows) == len(digests) == 2
    assert set(digests) == {check_run(out, "1.0")}


def test_names_and_options_stand_in_recipes_as_any_other(example):
    recipe = load_recipe("digits-cnn", [*SMALL, HALF])
    assert recipe.optimizer.options() == {"factor": 0.5}
    assert recipe_from(json.loads(recipe.model_dump_json())) == recipe
    assert "name: example_sgd, weight_decay: 0.0, factor: 0.5, clip_norm: null" in dump_recipe(recipe)
    for override, line in {
        "optimizer.factr=1": "'optimizer.factr': unknown; the nearest known entry is optimizer.factor",
        "optimizer.factor=0": "optimizer.factor=0: input should be greater than 0",
        "optimizer.momentum=0.5": "momentum=0.5 has no place in example_sgd, which takes factor; leave it out",
        "optimizer={factor: 1}": "factor=1 has no place in sgd, which takes momentum,",
    }.items():
        with pytest.raises(RecipeError, match=line):
            load_recipe("digits-cnn", [*SMALL, HALF, override])


def test_a_task_of_a_plugin_is_what_is_trained_and_judged(example):
    """Against least squares on the weights that the run ends with, in the order of rank alone."""
    from torch import nn

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    data = members.DATASETS["example_stripes"].load(None)
    words = [*SMALL, "task=example_squares", "precision=fp64", "data.name=own"]
    result = batchscale.train("digits-cnn", words, model=net, data=data, quiet=True)
    scale = [data.train_images.double().mean(), data.train_images.double().std(correction=0)]
    outputs = net((data.test_images.double() - scale[0]) / scale[1])
    expected = (outputs - nn.functional.one_hot(data.test_labels, 2)).square().sum(1).mean() / 2
    assert result.test_loss == pytest.approx(expected.item(), rel=1e-9)
    assert result.task == "example_squares"
    with pytest.raises(RecipeError, match="task=example_square: unknown; did you mean example_squares"):
        batchscale.train("digits-cnn", [*SMALL, "task=example_square"], quiet=True)


def test_registering_in_python_is_enough():
    from torch import nn

    plugins.register_model("here_mlp", lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, classes)))
    result = batchscale.train("digits-cnn", ["model.name=here_mlp", "epochs=0.1", "numerics.threads=1"], quiet=True)
    assert result.status == "done"


def test_homes_are_imported_when_they_are_first_used(tmp_path, capsys):
    text = "from batchscale.plugins import register_model\nregister_model('late', 'no_such_module:net')\n"
    write_plugin(tmp_path / "p", "late_plugin", text)
    loading.load(["late_plugin"])
    assert load_recipe("digits-cnn", ["model.name=late"]).model.name == "late"
    out = tmp_path / "run"
    line = refused(capsys, "train", "digits-cnn", "model.name=late", "--out", str(out), "--plugin", "late_plugin")
    assert "plugin late_plugin: its model 'late' cannot be imported from no_such_module:net (ModuleNotFound" in line
    assert not out.exists()


def test_a_recipe_of_a_plugin_is_checked_without_torch():
    words = ["train", "digits-cnn", *SMALL, HALF, STAR, "epochs=abc", "--plugin", "batchscale_example"]
    code = f"from batchscale.cli import main\nassert main({words}) == 2\nimport sys\nassert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE / "src")}
    checked = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert "epochs='abc'" in checked.stderr


BROKEN = {
    "raising": (
        "raise ValueError('no')",
        "broke while it was loaded (ValueError: no); mend it, or leave it out of",
    ),
    "leaving": ("raise SystemExit(0)", "broke while it was loaded (SystemExit: 0); mend it, or leave it out of"),
    "lacking": ("import no_such_library", "broke while it was loaded (ModuleNotFoundError: No module named 'no_such_"),
    "known": (
        "from batchscale.plugins import register_model as r\nr('cnn', len)",
        "plugin known: registers the model 'cnn', a name that batchscale has already; register it under another name",
    ),
    "own": (
        "from batchscale.plugins import register_data as r\nr('own', len)",
        "registers the data set 'own': must be a word of letters, digits, '_', '-' and '.' that begins with a letter, "
        "and not own; give it another name",
    ),
    "slash": (
        "from batchscale.plugins import *\nregister_model('a/b', len)",
        "registers the model 'a/b': must be",
    ),
    "entry": (
        "from batchscale.plugins import *\nregister_optimizer('x', OptimizerEntry, len)",
        "optimizer.name=x: its entry says PydanticUndefined; give its name this name as the only value and default",
    ),
    "no_entry": (
        "from batchscale.plugins import *\nregister_optimizer('x', dict, len)",
        "optimizer.name=x: its entry must be a class of OptimizerEntry",
    ),
    "known_optimizer": (
        "from batchscale.plugins import *\nfrom batchscale.recipe.optimizer import LAMBEntry\n"
        "register_optimizer('lamb', LAMBEntry, len)",
        "registers the optimizer 'lamb', a name that batchscale has already",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plugin_that_cannot_be_loaded_is_one_line_and_nothing_is_written(tmp_path, capsys, name):
    write_plugin(tmp_path / "p", name, BROKEN[name][0])
    out = tmp_path / "run"
    line = refused(capsys, "train", "digits-cnn", "--plugin", name, "--out", str(out))
    assert BROKEN[name][1] in line
    assert not out.exists()


def test_a_plugin_that_is_not_there_is_said_to_be_missing(tmp_path, capsys):
    write_plugin(tmp_path / "p", "there", "")
    for module, missing in {"nosuch": "nosuch", "there.inner": "there.inner", "no.such": "no"}.items():
        line = refused(capsys, "recipes", "--plugin", module)
        assert f"plugin {module}: no module '{missing}' to import; install it, put its folder on PYTHONPATH, or" in line


@pytest.mark.parametrize("folder", ["", "../pl/", "/"])
@pytest.mark.parametrize("function", ["", ":go"])
def test_a_plugin_named_by_its_file_is_told_the_modules_name(tmp_path, capsys, folder, function):
    write_plugin(tmp_path / "p", "filed", "raise ValueError('imported')")
    line = refused(capsys, "recipes", "--plugin", f"{folder}filed.py{function}")
    assert f"plugin {folder}filed.py{function}: must be a module's name, not a file's" in line
    assert f"give --plugin filed{function}, its folder on PYTHONPATH" in line
    assert "filed" not in sys.modules
    assert "plugin '': must be a module's name" in refused(capsys, "recipes", "--plugin", "")


def test_what_a_plugin_prints_is_no_part_of_a_document(tmp_path, capsys):
    text = "from batchscale.plugins import register_model\nprint('loading')\n"
    write_plugin(
        tmp_path / "p", "talker", text + "def go():\n    print('going')\n    register_model('m', 'talks:net')\n"
    )
    write_plugin(tmp_path / "p", "talks", "print('first use')\nnet = len\n")
    assert main(["recipes", "--json", "--plugin", "talker:go"]) == 0
    assert members.MODELS["m"] is len
    captured = capsys.readouterr()
    assert json.loads(captured.out)["recipes"]
    assert captured.err.split("\n") == ["loading", "going", "first use", ""]


def test_two_plugins_of_one_name_are_told_who_has_it(tmp_path, capsys):
    text = "from batchscale.plugins import register_model\nregister_model('net', lambda shape, classes: 0)"
    for name in ("first", "second"):
        write_plugin(tmp_path / "p", name, text)
    line = refused(capsys, "recipes", "--plugin", "first", "--plugin", "second")
    assert "plugin second: registers the model 'net', a name that plugin first has already" in line


def test_a_plugin_that_comes_twice_registers_once(tmp_path):
    text = "from batchscale.plugins import register_model as r\ndef net(shape, n): ...\ncalls = []\n"
    text += "def go():\n    calls.append(1)\n    r('net', net)\n"
    write_plugin(tmp_path / "p", "twice", text)
    loading.load(["twice:go", "twice"])
    loading.load(["twice:go"])
    assert [row["name"] for row in loading.loaded()] == ["twice", "twice:go"]
    assert os.environ[loading.VARIABLE] == "twice:go,twice"
    assert sys.modules["twice"].calls == [1]
    assert repetition(Path("run"), 1, None)[3:] == ("--plugin", "twice:go", "--plugin", "twice")


def test_an_entry_point_names_its_package_where_it_breaks(tmp_path, monkeypatch, capsys):
    write_plugin(tmp_path / "p", "installed", "1 / 0")
    information = tmp_path / "p" / "some_package-2.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: some-package\nVersion: 2.5\n")
    (information / "entry_points.txt").write_text("[batchscale.plugins]\nx = installed\n")
    loading._complete_for.clear()
    assert metadata.version("some-package") == "2.5"
    line = refused(capsys, "train", "digits-cnn")
    assert "plugin installed (some-package 2.5): broke while it was loaded (ZeroDivisionError" in line
    assert "mend it, or uninstall some-package" in line


_ALL_REDUCES = ("execution.aggregation.algorithm", "execution.aggregation.between")


@pytest.mark.parametrize("entry", ["model.name", "data.name", "optimizer.name", *_ALL_REDUCES])
def test_an_unknown_name_may_be_one_of_a_plugin(capsys, entry):
    line = refused(capsys, "train", "digits-cnn", f"{entry}=x")
    assert ", or one of a plugin (give --plugin MODULE, or install its package); set it with" in line
    os.environ.update(RANK="3", WORLD_SIZE="4")
    with pytest.raises(RecipeError, match=r"or one of a plugin \(rank 3: give --plugin MODULE"):
        load_recipe("digits-cnn", [f"{entry}=x"])


def loaded_in_some(rank, path, out):
    """What a run says where rank 0 alone has the plugin."""
    sys.path.insert(0, path)
    if rank == 0:
        loading.load(["batchscale_example"])
    try:
        batchscale.train("digits-cnn", ["epochs=0.1"], out=out, quiet=True)
    except UsageError as error:
        return str(error)


def test_a_plugin_missing_in_one_process_is_named_with_the_rank(tmp_path):
    errors = in_processes(3, loaded_in_some, str(EXAMPLE / "src"), tmp_path / "run")
    assert set(errors) == {
        "plugin batchscale_example: loaded in rank 0 and missing in rank 1; install it on every host, or give "
        "--plugin batchscale_example to every process"
    }
    assert not (tmp_path / "run").exists()


def test_versions_of_plugins_are_compared():
    rows = [[{"name": "p", "version": version}] for version in ("1.0", "1.0", "1.1")]
    loading.check_same(rows[:2])
    with pytest.raises(UsageError, match=r"plugin p: version 1.0 in rank 0, 1.1 in rank 2; install one version"):
        loading.check_same(rows)


@pytest.mark.parametrize("words", [["recipes"], ["train", "digits-cnn", "epochs=abc"], ["study", "grid", "x"]])
def test_every_command_takes_plugins(capsys, words):
    with pytest.raises(SystemExit):
        main([words[0], *words[1:2][: words[0] == "study"], "--help"])
    assert "--plugin MODULE" in capsys.readouterr().out
    assert "plugin nosuch: no module" in refused(capsys, *words, "--plugin", "nosuch")


def test_the_example_is_what_its_readme_says():
    text = (EXAMPLE / "README.md").read_text()
    for file in Path(EXAMPLE / "src" / "batchscale_example").glob("[a-z]*.py"):
        assert f"`{file.name}`" in text
        assert len(file.read_text().splitlines()) < 60


def forgotten(*names):
    """As a command that was not given the plugins of the one before."""
    loading._loaded.clear()
    loading._complete_for.clear()
    os.environ.pop(loading.VARIABLE)
    for name in names:
        del members.MODELS[name]


MLP = (
    "from torch import nn\nfrom batchscale.plugins import register_model\n"
    "def net(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    "register_model('mm', net)\n"
)
SHORT = ("digits-cnn", "model.name=mm", "epochs=0.1", "numerics.threads=1")


def test_a_run_names_the_plugin_that_its_resume_lacks(tmp_path, capsys):
    write_plugin(tmp_path / "p", "p_mm", MLP)
    out = tmp_path / "run"
    assert main(["train", *SHORT, "--out", str(out), "--plugin", "p_mm"]) == 0
    capsys.readouterr()
    forgotten("mm")
    here = f"; the run in {out} had --plugin p_mm: give it again\n"
    assert refused(capsys, "train", *SHORT, "--out", str(out), "--resume").endswith(here)
    new = ("--out", str(tmp_path / "new"))
    assert refused(capsys, "train", str(out / "recipe.yaml"), *new).endswith(here)
    assert refused(capsys, "train", *SHORT, *new).endswith("; set it with model.name=VALUE\n")
    (out / "environment.json").unlink()
    assert refused(capsys, "train", *SHORT, "--out", str(out), "--resume").endswith("or install its package)\n")


def test_a_study_of_a_plugin_is_whole_without_it(tmp_path, capsys):
    write_plugin(tmp_path / "p", "p_mm", MLP)
    study = ("--way", "a: seed=1", "--seeds", "1", "--out", str(tmp_path / "st"))
    assert main(["study", "grid", *SHORT, *study, "--plugin", "p_mm"]) == 0
    capsys.readouterr()
    forgotten("mm")
    plain = [word for word in SHORT if word != "model.name=mm"]
    for words, ending in (
        (("grid", *plain, *study), "(give --plugin MODULE, or install its package), or give another --out"),
        (
            ("warmup", *plain, "--minibatch=64", *study[2:]),
            "holds a study of kind grid, not warmup; give another --out",
        ),
    ):
        line = refused(capsys, "study", *words)
        assert ending in line
        assert "damaged" not in line


FAULTY = """
from batchscale.plugins import *
from typing import Literal


def raising(*arguments, **options):
    print("building")
    raise RuntimeError("model oops")


class Entry(OptimizerEntry):
    name: Literal["raising", "nothing"] = "raising"


class Other(Entry):
    name: Literal["nothing"] = "nothing"


class Star:
    in_layout = raising


for name, entry, builder in (("raising", Entry, raising), ("nothing", Other, lambda *_: None)):
    register_model(name, builder)
    register_optimizer(name, entry, builder)
register_all_reduce("raising", Star)


class Images:
    name, num_classes, files, layouts = "raising", 10, (), ()
    open = raising


register_data("raising", Images())
"""


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model.name=raising",
            "model.name=raising: its builder failed for images (1, 8, 8), 10 classes (RuntimeError: model oops)",
        ),
        ("model.name=nothing", "model.name=nothing: its builder returned NoneType for images (1, 8, 8), 10 classes"),
        (
            "optimizer={name: raising}",
            "optimizer.name=raising: its builder failed for groups of 4 and 7 tensors (RuntimeError: model oops)",
        ),
        ("optimizer={name: nothing}", "optimizer.name=nothing: its builder returned NoneType: must have step(lr) and"),
        ("data.name=raising", "data.name=raising: its builder failed for this run (RuntimeError: model oops)"),
        (
            "execution.aggregation.algorithm=raising",
            "execution.aggregation.algorithm=raising: its builder failed for 2 processes (RuntimeError: model oops)",
        ),
    ],
)
def test_a_builder_of_a_plugin_that_fails_is_one_line(tmp_path, override, sentence):
    write_plugin(tmp_path / "p", "faulty", FAULTY)
    words = ["train", "digits-cnn", "minibatch.workers=2", "epochs=0.1", override, "--processes", "2", "--json"]
    out = ["--out", str(tmp_path / "run"), "--plugin", "faulty"]
    ended = subprocess.run(
        [sys.executable, "-m", "batchscale", *words, *out],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "p")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("batchscale: ")]
    assert ended.returncode == 2, ended.stderr
    assert sentence in lines[0]
    assert "Traceback" not in ended.stderr
    assert "building" not in ended.stdout


POEM = b"the minibatch grows and the steps are few, " * 60

OTHER_DATA = f"""
POEM = {POEM!r}
from batchscale.data.boxes.box_sources import DigitBoxes
from batchscale.data.language.text_sources import Text, TextSource
from batchscale.plugins import register_data


class Poem(TextSource):
    def texts(self, folder, reading):
        return Text(POEM, POEM[:400], ("poem", "its test part"), "")


register_data("poem", Poem("poem", 0, (), ()), holds="text")
register_data("my_scenes", DigitBoxes("my_scenes", 11, (30.0,), (60.0,)), holds="boxes")
"""

BRIEF = ("epochs=0.02", "numerics.threads=1", "execution.device=cpu", "minibatch={workers: 2, per_worker: 2}")


def test_texts_and_boxes_of_a_plugin_take_the_entries_of_theirs(tmp_path):
    write_plugin(tmp_path, "other_data", OTHER_DATA)
    with pytest.raises(RecipeError, match=r"or one of a plugin"):
        load_recipe("topics-transformer", ["data.name=poem"])
    loading.load(["other_data"])
    with pytest.raises(RecipeError, match=r"data.name=poem is a text, and data.sequence is missing"):
        load_recipe("digits-cnn", ["data.name=poem", "task=language"])
    poem = (*BRIEF, "data={name: poem, sequence: 8}", "model.options={width: 8, layers: 1, heads: 2}", "epochs=0.1")
    assert batchscale.train("topics-transformer", poem, quiet=True).status == "done"
    boxes = (
        *BRIEF, "data={name: my_scenes, resize: [32, 48]}", "numerics.evaluation_chunk=50", "data.holdout=4",
        "model.options={width: 8, pyramid: 8, hidden: 16, anchor: 8, proposals: 12, sampled: 8}",
    )  # fmt: skip
    assert batchscale.train("digits-scenes-detection", boxes, quiet=True).status == "done"


def test_what_a_data_set_holds_is_one_of_the_known_things():
    with pytest.raises(UsageError, match=r"data set 'x': holds='films': must be one of labels, pairs, boxes, text"):
        plugins.register_data("x", "module:X", holds="films")
    assert "x" not in members.DATASETS
    plugins.register_data("x", "module:X", holds="pairs")
    assert load_recipe("nuclei-unet", ["data={name: x, augment: {size: 64}}"]).data.augment.size == 64
