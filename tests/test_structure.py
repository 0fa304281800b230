"""The shape of the house: imports point down only, names of recipes are the tables' members, public names listed.

And its manner: one class name one thing, files and functions that can be read at once, locals that say the thing.
"""

import ast
import fnmatch
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.names import code_lines, counts

import batchscale
from batchscale import members
from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.comm import ALGORITHMS
from batchscale.recipe import schema
from batchscale.recipe.minibatch import GROWTH_ENTRIES
from batchscale.recipe.optimizer import OPTIMIZERS
from batchscale.update.growth import GROWTHS
from batchscale.update.schedule import DECAYS, SCALINGS, WARMUPS

SOURCE = Path(batchscale.__file__).parent
TESTS = Path(__file__).parent

_TABLE = """
words:
asking:
errors: words
members: words errors
randomness:
order: randomness
structure:
minibatch: errors
noise_scale:
hyperbola:
placement: errors
system: words errors
recipe: words errors members
models: words errors members
task: words errors members structure
comm: words errors members system
data: words errors members randomness order structure minibatch system
update: errors minibatch recipe
records: errors members system recipe batchscale
worker: words errors randomness structure comm data
aggregate: errors minibatch noise_scale comm
launch: errors system recipe comm
training: words errors randomness structure minibatch noise_scale system recipe task comm data update records worker
  aggregate
build: words errors members randomness order structure minibatch placement system recipe models task comm data update
  records worker aggregate launch training batchscale
measure: asking words errors members randomness structure noise_scale recipe task comm data update records worker
  training build
run: words errors members minibatch noise_scale system recipe task comm data records worker launch training build
  measure batchscale
bench: words errors randomness structure minibatch system recipe task comm data records aggregate launch build
report: words errors system records bench
study: asking words errors members hyperbola randomness system recipe data update records launch build measure run
cost: words errors members hyperbola recipe comm records
plugins: errors members recipe
api: errors recipe task data records run
cli: asking words errors members system recipe comm data records launch build run bench report measure study cost
  batchscale
__init__: errors minibatch placement recipe comm data update records aggregate api
__main__: system cli
"""
"""Room: the rooms that it imports, in the order of the floors; batchscale is the package itself (its version)."""

LEVELS = {
    room: set(below.split())
    for room, _, below in (line.partition(":") for line in _TABLE.replace("\n  ", " ").split("\n") if line)
}


SAME_THING = {"Question", "Answer"}
"""Class names that several files share because they mean the same: every study has one."""

MOST_FILE_LINES, MOST_CODE_LINES = 300, 40

MOST_EMPTY_WORDS = 3.0
"""In 1,000 code lines. `python tests/support/names.py ROOM` names each place."""


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(parsed(file)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            if name == "batchscale" or name.startswith("batchscale."):
                rooms.add([*name.split("."), name][1])
    return rooms


def test_every_room_is_in_the_table():
    rooms = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert rooms - {"__pycache__", "recipes"} == set(LEVELS)


def files_of(room: str) -> list[Path]:
    return [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").exists() else sorted((SOURCE / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(LEVELS))
def test_imports_are_those_of_the_table(room):
    for file in files_of(room):
        beyond = imports_of(file) - LEVELS[room] - {room}
        assert not beyond, f"{file.relative_to(SOURCE)} imports {sorted(beyond)}"
    used = set().union(*map(imports_of, files_of(room)))
    assert LEVELS[room] <= used, f"no file of {room} imports {sorted(LEVELS[room] - used)}: take it out of the table"


def test_imports_point_down():
    floors = list(LEVELS)
    for room, below in LEVELS.items():
        for other in below - {"batchscale"}:
            assert floors.index(other) < floors.index(room), f"{room} imports {other}, which stands above it"


def test_no_room_imports_another_in_both_directions():
    for room, below in LEVELS.items():
        for other in below - {"batchscale"}:
            assert room not in LEVELS[other], f"{room} and {other} may import each other"


@pytest.mark.parametrize(
    ("literal", "table"),
    [
        (schema.ScalingName, SCALINGS),
        (schema.WarmupName, WARMUPS),
        (schema.DecayName, DECAYS),
    ],
)
def test_names_of_schedules_are_the_members_of_the_tables(literal, table):
    assert set(typing.get_args(literal)) == set(table)


def test_every_way_to_grow_has_an_entry():
    assert set(GROWTH_ENTRIES.members) == set(GROWTHS)


FAMILIES = (members.MODELS, members.DATASETS, members.TASKS, members.ALL_REDUCES, members.BETWEEN, OPTIMIZERS)


@pytest.mark.parametrize("table", FAMILIES)
def test_every_member_lies_where_its_table_says(table):
    for name in table:
        assert callable(table[name]) or table[name].name == name


def test_backends_stand_beside_the_schedules():
    assert set(ALGORITHMS) - set(members.ALL_REDUCES) == set(members.BACKENDS)
    assert set(members.BETWEEN) <= set(members.ALL_REDUCES)
    assert {*members.ON_DISK, *members.PAIRS, *members.TEXTS, *members.WITH_BOXES} <= set(members.DATASETS)


def test_a_public_class_name_is_one_thing():
    files_with: dict[str, list[str]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        for name in {node.name for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)}:
            files_with.setdefault(name, []).append(str(file.relative_to(SOURCE)))
    shared = {name: files for name, files in files_with.items() if len(files) > 1 and not name.startswith("_")}
    beyond = {name: files for name, files in shared.items() if name not in SAME_THING}
    assert not beyond, f"name one of them anew: {beyond}"


def test_files_can_be_read_at_once():
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    long = {str(file.relative_to(SOURCE)): lines for file, lines in lengths.items() if lines > MOST_FILE_LINES}
    assert not long, f"more than {MOST_FILE_LINES} lines, usually two things: {long}"


def functions_of(node: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.Module]]:
    """Every function and method, with its classes and the functions around it in its name."""
    for child in ast.iter_child_nodes(node):
        name = outer
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{outer}.{child.name}".lstrip(".")
            if not isinstance(child, ast.ClassDef):
                yield name, ast.Module([child], [])
        yield from functions_of(child, name)


def test_functions_can_be_read_at_once():
    lengths = {
        f"{file.relative_to(SOURCE)}:{name}": code_lines(function)
        for file in SOURCE.rglob("*.py")
        for name, function in functions_of(parsed(file))
    }
    assert lengths["placement.py:place_workers"] > 20  # they are seen at all
    long = {name: lines for name, lines in lengths.items() if lines > MOST_CODE_LINES}
    assert not long, f"more than {MOST_CODE_LINES} code lines, usually two things: {long}"


def test_locals_and_parameters_say_the_thing():
    words, lines = counts(sorted(SOURCE.rglob("*.py")))
    assert lines > 10_000
    assert 1000 * words / lines <= MOST_EMPTY_WORDS


def test_aggregators_share_one_seam():
    for aggregator in (FastAggregator, ExactAggregator):
        for name in ("attempts", "last_pass", "add", "state", "close"):
            assert callable(getattr(aggregator, name))


def test_public_names_are_those_listed_and_all_load():
    assert batchscale.__all__ == sorted(batchscale._HOME)
    for name in batchscale.__all__:
        assert getattr(batchscale, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = batchscale.no_such_name


@pytest.mark.parametrize(
    "code",
    [
        "import batchscale",
        "from batchscale.cli import main; main(['recipes'])",
        "from batchscale.cli import main; assert main(['train', 'digits-cnn', 'epochs=abc']) == 2",
        "import batchscale.report.draw.file, batchscale.records, batchscale.recipe, batchscale.update.schedule",
        "import batchscale.report.draw.schedules",
        "import batchscale.report.page, batchscale.cli.report",
    ],
)
def test_help_and_reports_never_import_torch(code):
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_every_folder_of_tests_is_collected(pytestconfig):
    """By default pytest leaves out folders of some names, such as ``build``, without a word."""
    left_out = pytestconfig.getini("norecursedirs")
    folders = {file.parent for file in TESTS.rglob("test_*.py")} - {TESTS}
    assert len(folders) > 10
    for folder in folders:
        for part in folder.relative_to(TESTS).parts:
            assert not any(fnmatch.fnmatch(part, pattern) for pattern in left_out), folder
