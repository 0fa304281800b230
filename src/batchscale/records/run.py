"""A run's folder, read: the one reader of what ``RunFolder`` and a run's end have written there.

Lines that a kill or a full disk has damaged are left out everywhere. Whole documents are read in two ways: what shows a
run to people says why one cannot be read (``recipe``, ``environment``, ``result``, ``skipped``); what asks a run for
its numbers takes what there is (``attempts`` and the lines).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError, RecipeError
from batchscale.recipe.load import parse_yaml
from batchscale.records.files import damaged_lines, is_number, is_shallow, last_line, parse_json, read_lines
from batchscale.records.result import Result, read_result

METRICS, EVALUATIONS, MEASURES = "metrics.jsonl", "evaluations.jsonl", "measures.jsonl"
LINES = (METRICS, EVALUATIONS, MEASURES)
"""The files of lines, one a step, an evaluation or a measure."""


@dataclass(frozen=True)
class RunRecords:
    """What a run's folder holds; read anew at every call, for the run may be going on.

    Args:
        folder: of the run.
    """

    folder: Path

    def recipe_text(self) -> str:
        """recipe.yaml as it stands.

        Raises:
            FolderError: it is missing or cannot be read; the message is the reason alone.
        """
        return self._text("recipe.yaml")

    def recipe(self) -> dict[str, Any]:
        """The entries of recipe.yaml, as an earlier version may have written them.

        Raises:
            FolderError: it is missing or damaged; the message is the reason alone.
        """
        try:
            entries = parse_yaml(self.recipe_text(), "recipe.yaml")
        except RecipeError:
            entries = None
        if not isinstance(entries, dict) or not is_shallow(entries):
            raise FolderError("recipe.yaml is damaged")
        return entries

    def environment(self) -> dict[str, Any]:
        """environment.json of the newest attempt.

        Raises:
            FolderError: it is missing or damaged; the message is the reason alone.
        """
        newest = self._mapping("environment.json")
        newest.pop("earlier", None)
        return newest

    def attempts(self) -> list[dict[str, Any]]:
        """The environment of every attempt, the newest first; [] where environment.json does not tell."""
        try:
            newest = self._mapping("environment.json")
        except (FolderError, OSError):  # OSError: the folder itself may not be looked into
            return []
        earlier = newest.pop("earlier", [])
        return [newest, *(one for one in (earlier if isinstance(earlier, list) else []) if isinstance(one, dict))]

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        return read_lines(self.folder / METRICS)

    def evaluations(self) -> list[dict[str, Any]]:
        """The whole lines of evaluations.jsonl."""
        return read_lines(self.folder / EVALUATIONS)

    def measures(self) -> list[dict[str, Any]]:
        """The whole lines of measures.jsonl."""
        return read_lines(self.folder / MEASURES)

    def points(self, name: str, entry: str) -> Iterator[tuple[float, float]]:
        """(epoch, value) of every line of a file of lines that has both as numbers.

        Args:
            name: METRICS or EVALUATIONS.
            entry: of a line, such as "loss".
        """
        for line in read_lines(self.folder / name):
            epoch, value = line.get("epoch"), line.get(entry)
            if is_number(epoch) and is_number(value):
                yield epoch, value

    def newest_metrics(self) -> dict[str, Any] | None:
        """The last whole line of metrics.jsonl, from the end of the file alone; None where there is none."""
        return last_line(self.folder / METRICS)

    def with_examples(self) -> Iterator[tuple[float, float, dict[str, Any]]]:
        """(examples seen by the end of a line, examples of the line, the line) of metrics.jsonl."""
        seen, done = 0.0, 0.0
        for line in self.metrics():
            if is_number(line.get("step")) and is_number(line.get("minibatch")) and line["step"] > done:
                examples = (line["step"] - done) * line["minibatch"]
                seen, done = seen + examples, line["step"]
                yield seen, examples, line

    def examples_at(self, step: float, minibatch: float) -> float:
        """Examples that were seen after a step; by the last minibatch where the lines end before it.

        Args:
            step: steps done.
            minibatch: kn of the first step, where there are no lines.
        """
        total, done = 0.0, 0.0
        for seen, _, line in self.with_examples():
            minibatch = line["minibatch"]
            if line["step"] > step:
                break
            total, done = seen, line["step"]
        return total + (step - done) * minibatch

    def damaged(self, name: str) -> tuple[list[int], bool]:
        """The numbers of a file's damaged lines from 1 on, and whether its end is cut in mid-line."""
        return damaged_lines(self.folder / name)

    def has_ended(self) -> bool:
        """Whether there is a result, read or not."""
        return (self.folder / "result.json").exists()

    def result(self) -> Result | None:
        """result.json; None where the run has not ended.

        Raises:
            FolderError: it cannot be read, or is damaged; the message is the reason alone.
        """
        if not self.has_ended():
            return None
        try:
            return read_result(self.folder)
        except FolderError as error:
            if isinstance(error.__cause__, OSError):
                raise _unreadable("result.json", error.__cause__) from error.__cause__
            raise FolderError("result.json is damaged") from None

    def skipped(self) -> dict[str, Any]:
        """skipped.json: data files that were passed over, and why; {} where there is none.

        Raises:
            FolderError: it is damaged; the message is the reason alone.
        """
        return self._mapping("skipped.json") if (self.folder / "skipped.json").is_file() else {}

    def _mapping(self, name: str) -> dict[str, Any]:
        try:
            content = parse_json(self._text(name))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise FolderError(f"{name} is damaged")
        return content

    def _text(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            raise FolderError(f"no {name}: never begun")
        if not path.is_file():
            raise FolderError(f"{name} is no file")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise _unreadable(name, error) from error
        except UnicodeDecodeError:
            raise FolderError(f"{name} cannot be read (not UTF-8)") from None


def speed_entry(line: Mapping[str, Any]) -> str:
    """The entry of a line of metrics.jsonl with the examples of a second: "images_per_second", by the task's word.

    Their parts, such as tokens, stand after them.
    """
    return next((entry for entry in line if entry.endswith("_per_second")), "images_per_second")


def _unreadable(name: str, error: OSError) -> FolderError:
    return FolderError(f"{name} cannot be read ({error.strerror or error})")
