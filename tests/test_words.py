"""Numbers and their nouns agree, and no text for users leaves that to the reader."""

import ast
from pathlib import Path

import pytest

import batchscale
from batchscale.words import counted, has


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, "step"), "1 step"),
        ((0, "process"), "0 processes"),
        ((1234, "file", ","), "1,234 files"),
        ((1.0, "epoch", "g"), "1 epoch"),
        ((2, "epoch"), "2 epochs"),
        ((2, "minibatch"), "2 minibatches"),
        ((2, "branch"), "2 branches"),
        ((0.5, "point", "g"), "0.5 points"),
        (("1", "worker"), "1 worker"),
        (("?", "image"), "? images"),
    ],
)
def test_a_number_and_its_noun_agree(arguments, words):
    assert counted(*arguments) == words


def test_the_verb_agrees():
    assert [has(number) for number in (0, 1, 2)] == ["have", "has", "have"]


def test_no_text_says_noun_s_in_brackets():
    for file in Path(batchscale.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "(s)" not in node.value, f"{file.name}:{node.lineno}"
