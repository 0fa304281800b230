"""Findings and runs -> one HTML page that fetches nothing.

Style and script stand in the page; its content security policy admits those two by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from batchscale.records.findings import Findings
from batchscale.report.draw.lines import MARKERS
from batchscale.report.page.figures import figure_view
from batchscale.report.page.runs import Run
from batchscale.report.page.views import (
    environment_of,
    machine_of,
    rows_view,
    run_ids,
    run_labels,
    run_view,
    table_view,
)
from batchscale.report.text import clean, command_line

_ROOM = "batchscale.report.page"
_WHOLE_RECIPES = 1
"""Up to so many runs each show their whole recipe; of more, what differs from the first."""


def render(findings: Findings, runs: Sequence[Run] = (), skipped: Sequence[tuple[str, str]] = ()) -> str:
    """The page.

    Args:
        findings: what was found.
        runs: those that have a section.
        skipped: folders and files that were passed over, and why.
    """
    ids = run_ids(runs)
    reference = runs[0] if len(runs) > _WHOLE_RECIPES else None
    labels = run_labels(findings)
    style, script, planner_script = (_file(name) for name in ("style.css", "script.js", "planner.js"))
    return _templates().get_template("page.html.j2").render(
        title=clean(findings.title),
        kind=clean(findings.kind),
        recipe=clean(findings.recipe),
        asked=clean(findings.asked),
        answer=clean(findings.answer),
        warnings=[clean(warning) for warning in findings.warnings],
        command=command_line(findings.command),
        figures=[figure_view(figure, place + 1, ids) for place, figure in enumerate(findings.figures)],
        tables=[table_view(table) for table in findings.tables],
        rows=rows_view(findings, ids),
        runs=[run_view(run, ids[run.name], reference, labels.get(run.name, "")) for run in runs],
        reference=reference,
        reference_machine=machine_of(reference) if reference else {},
        skipped=[(clean(name), clean(reason)) for name, reason in skipped],
        environment=environment_of(findings),
        many=len(findings.figures) > 4 and all(len(figure.series) <= 3 for figure in findings.figures),
        markers=MARKERS,
        planner=findings.result.get("sliders") if findings.kind == "plan" else None,
        planner_script=Markup(planner_script),
        planner_hash=_hash(planner_script),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )  # fmt: skip


@cache
def _templates() -> Environment:
    loader = PackageLoader("batchscale.report", "page")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _file(name: str) -> str:
    return resources.files(_ROOM).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
