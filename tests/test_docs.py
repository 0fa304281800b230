"""The documents: no gap left to fill in, no link to nothing, no address or path of a machine."""

import re
from pathlib import Path

import pytest

from batchscale.cli import parser
from batchscale.recipe import shipped_names, shipped_text

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z0-9]+@", text)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", shipped_names())
def test_headers_of_recipes_are_filled_in(name):
    assert not re.search(r"@[A-Z0-9]+@", shipped_text(name))


def test_the_readme_names_only_commands_and_recipes_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"^    ([a-z]+) ", parser().format_help(), re.MULTILINE))
    assert "train" in commands
    used = set(re.findall(r"batchscale ([a-z]+)", "\n".join(re.findall(r"```\n(.*?)```", text, re.S))))
    assert used <= commands
    assert "batchscale" in text
    for recipe in re.findall(r"batchscale train ([a-z0-9-]+)", text):
        assert recipe in shipped_names()
