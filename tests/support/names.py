"""How often a local or a parameter is called by a word that says nothing, in 1,000 code lines.

As a script it prints the count of every room of src/batchscale, and, with a room as argument, each place.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import batchscale

SOURCE = Path(batchscale.__file__).parent
EMPTY_WORDS = {
    "found", "said", "made", "asked", "given", "taken", "before", "here", "there", "mine", "own", "of", "at", "on",
}  # fmt: skip


def code_lines(tree: ast.Module) -> int:
    """Lines that hold code: no blank line, comment or docstring."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.stmt):
            first_inside = min((child.lineno for child in getattr(node, "body", [])), default=None)
            lines.update(range(node.lineno, (first_inside or (node.end_lineno or node.lineno) + 1)))
    for node in ast.walk(tree):  # docstrings, which the heads of functions and classes reach over
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def empty_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of every binding of an empty word: assigned, looped over, a parameter, an import's or a match's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name, line = node.id, node.lineno
        elif isinstance(node, ast.arg):
            name, line = node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            name, line = node.name, node.lineno
        else:
            continue
        if name.strip("_") in EMPTY_WORDS:
            yield line, name


def counts(files: list[Path]) -> tuple[int, int]:
    """(bindings of empty words, code lines) of files."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return sum(len(list(empty_names(tree))) for tree in trees), sum(code_lines(tree) for tree in trees)


def _rooms() -> dict[str, list[Path]]:
    rooms: dict[str, list[Path]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        rooms.setdefault(file.relative_to(SOURCE).parts[0].removesuffix(".py"), []).append(file)
    return rooms


if __name__ == "__main__":
    for room, files in _rooms().items():
        number, lines = counts(files)
        print(f"{room:12} {number:4} in {lines:6} code lines: {1000 * number / max(lines, 1):5.1f} in 1,000")
        for file in files if room in sys.argv[1:] else ():
            for line, name in empty_names(ast.parse(file.read_text(encoding="utf-8"))):
                print(f"  {file.relative_to(SOURCE)}:{line} {name}")
    number, lines = counts([file for files in _rooms().values() for file in files])
    print(f"{'all':12} {number:4} in {lines:6} code lines: {1000 * number / lines:5.1f} in 1,000")
