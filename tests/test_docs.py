"""The documents: no gap left to fill in, no link to nothing, no address or path of a machine."""

import re
import shlex

import pytest
import yaml
from PIL import Image
from support.pages import ROOT, blocks

import batchscale
from batchscale.cli import parser
from batchscale.recipe import load_recipe, shipped_names, shipped_text

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS]
MEANT_TO_BE_TYPED = [
    README, *(page for page in DOCS if page.stem in ("running", "recipes") or page.parent.name in ("learn", "do")),
]  # fmt: skip


def relative(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z0-9]+@", text)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", shipped_names())
def test_headers_of_recipes_are_filled_in(name):
    assert not re.search(r"@[A-Z0-9]+@", shipped_text(name))


def commands(page):
    """The batchscale commands of a page's code blocks, as words."""
    for language, text in blocks(page):
        if language in ("", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = re.split(r"[|>]", line.split("  #")[0])[0].removeprefix(".venv/bin/")
                if words.startswith("batchscale "):
                    yield shlex.split(words)[1:]


@pytest.mark.parametrize("page", MEANT_TO_BE_TYPED, ids=relative)
def test_commands_are_those_that_exist_with_recipes_and_entries_that_exist(page):
    for words in commands(page):
        options = parser().parse_args(words)
        if words[0] == "train" and page.parent.name != "do":  # there the page itself adds what the recipe names
            load_recipe(options.recipe, options.overrides)
        elif words[0] in ("train", "study"):
            assert options.recipe in shipped_names()


def test_commands_are_found():
    assert [words[:2] for words in commands(README)][:2] == [["train", "digits-cnn"]] * 2
    assert sum(len(list(commands(page))) for page in MEANT_TO_BE_TYPED) > 20


def test_the_tree_of_the_readme_has_every_room():
    (tree,) = (block.text for block in blocks(README) if block.text.startswith("src/batchscale/\n"))
    source = ROOT / "src" / "batchscale"
    rooms = {p.name + "/" for p in source.iterdir() if p.is_dir()} | {p.name for p in source.glob("[a-z]*.py")}
    assert set(re.findall(r"(?<!\S)(?:\w+\.py|\w+/)(?=\s|\*)", tree)) == rooms - {"__pycache__/"}


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in ("CHANGELOG", "log")], ids=relative)
def test_files_that_are_named_exist(page):
    source = ROOT / "src" / "batchscale"
    folders = {p.name for place in (ROOT, source) for p in place.iterdir() if p.is_dir() and p.name != "runs"}
    for name in re.findall(r"`((\w+)/[\w./-]+\.(?:py|md|ya?ml|json|csv))`", page.read_text(encoding="utf-8")):
        if name[1] in folders and page.parent.name != "do":  # there the page itself adds files
            assert (ROOT / name[0]).exists() or (source / name[0]).exists(), name[0]


def test_every_recipe_of_a_paper_is_in_the_table_of_recipes():
    named = re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"))
    assert set(shipped_names()) <= set(named)


def test_every_public_name_has_its_place_on_the_page_of_python():
    text = (ROOT / "docs" / "lookup" / "python.md").read_text(encoding="utf-8")
    homes = re.findall(r"^::: (batchscale\.[\w.]+)$", text, re.MULTILINE)
    assert sorted(home.rsplit(".", 1)[1] for home in homes) == batchscale.__all__


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE))
    assert pages == {str(page.relative_to(ROOT / "docs")) for page in DOCS}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == batchscale.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The batchscale developers"}]
    assert {"cff-version", "message", "title"} <= citation.keys()


def test_the_picture_of_a_page_is_small():
    file = ROOT / "docs" / "figures" / "report-page.png"
    with Image.open(file) as picture:
        assert picture.size == (1300, 2424)
        assert len(picture.convert("RGB").getcolors()) <= 64
    assert file.stat().st_size < 150_000
