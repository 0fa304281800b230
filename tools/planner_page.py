"""docs/planner.md, by the planner itself: python tools/planner_page.py REFERENCE > docs/planner.md

REFERENCE: the folder of the published tables (scaling/*.csv, data_to_target.csv).
"""

# ruff: noqa: E501 (a line of the page is a sentence)
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from planner_machine import section as machine_section
from planner_step import section as step_section
from planner_tables import section as tables_section

from batchscale.cost.clusters.cluster import cluster_names
from batchscale.cost.goal.epochs import fit_epochs, read_workloads
from batchscale.cost.goal.epochs_words import epochs_findings
from batchscale.cost.speeds.priors import MEANING, RANGES, shipped_priors
from batchscale.cost.speeds.scores import median_error, p90_error
from batchscale.cost.speeds.series import read_series
from batchscale.cost.speeds.validate import Validation, validate
from batchscale.cost.speeds.validation_words import validation_findings
from batchscale.records.findings import Table

PLAN = """\
## A plan

`batchscale plan RECIPE` puts both together: [Plan a run](do/plan-a-run.md).
Step times go through measured points and on by the form above; without points they are physics alone: layers, buckets, all-reduces and links.
Epochs follow the critical minibatch.
Intervals come from 512 draws of all that is uncertain, the same in every number of a plan:

| what | how far | from |
| --- | --- | --- |
| L, S, C | as above, updated by measured steps | published tables |
| the rate of a device that was not measured | 23 % | eight frameworks on one kind of device |
| other examples a device than the points have | 5 % a doubling | stated |
| the critical minibatch | its interval, each side by itself; an open end reaches a thousand times as far | its source |
| the epochs of a table | the scatter of its points | its fit |

What two numbers share cancels in their ratio, as a device's rate does in an efficiency.
"""
HEAD = """\
# How far more devices pay

`batchscale plan` predicts the speed of more devices from the few that you can measure, with an interval, and the data that a goal needs at a larger minibatch.
This page is written by `tools/planner_page.py` from published tables of other people: what is predicted never enters its own prediction.

## Speed from a few points

A table of speeds has one row a measurement; the columns are named by `batchscale plan validate --help`.

```bash
batchscale plan validate speeds.csv
batchscale plan validate speeds.csv --calibrate host --json
```

With `--calibrate two` the two smallest device counts of at least one host are known, and all larger ones are predicted.
With `--calibrate host` only the counts inside one host are known.
A series is what has equal source, system, model, per-device batch and precision; its texts are compared, never read.

The form has three numbers a series, each with a prior over series:

$P

A prediction goes on from the last measured point: x doublings of the hosts cost L x, plus S sqrt(x) of scatter either way, and C where the first host is left.
Measured steps beyond the first host update L and S of their series; the step that leaves the host does not, for it says next to nothing of later ones.
The medians are fitted by `batchscale plan priors`; the spreads are stated: within a factor of two (L, S) or four (C) for two series of three.
A source that the shipped priors know is predicted by priors fitted anew to the other sources.
The form itself and its spreads were chosen with these tables in view, so expect other series to be predicted somewhat worse.
"""


def markdown(table: Table) -> str:
    """A table of findings."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |" for row in rows)


def by_source(validation: Validation) -> Table:
    """Scores of each source."""
    rows = []
    for source in sorted({one.series.name.source for one in validation.judged}):
        series = [one for one in validation.judged if one.series.name.source == source]
        points = [point for one in series for point in one.points]
        rows.append((
            source.split("@")[0], len(series), len(points), f"{median_error(points):.1f}", f"{p90_error(points):.1f}",
            f"{np.median([p.baseline_error_percent for p in points]):.1f}",
            f"{sum(p.covered for p in points)} of {len(points)}",
        ))  # fmt: skip
    columns = ("source", "series", "points", "median error %", "90 % within", "baseline's median %", "in the interval")
    return Table(title="By source", columns=columns, rows=tuple(rows))


def section(validation: Validation, words: str) -> str:
    """One mode: what came out, beside the naive ways, by source, and what was refused."""
    findings = validation_findings(validation, [])
    refused = [table for table in findings.tables if table.title == "Refused"]
    parts = [f"## {words}", *findings.answer.replace(": ", ":\n", 1).replace("; ", ";\n").split("\n")]
    text = "\n".join([parts[0], "", *parts[1:], "", markdown(findings.tables[0]), "", markdown(by_source(validation))])
    return text + ("\n\nRefused by name and reason:\n\n" + markdown(refused[0]) if refused else "")


def parameters() -> str:
    """The shipped priors, with meaning and range."""
    letters = {"doubling": "L", "jitter": "S", "leaving": "C"}
    rows = [
        (f"{letters[one['name']]}, {one['name']}", f"{100 * one['median']:.1f} %", MEANING[one["name"]],
         "{:g} to {:g} %".format(*(100 * end for end in RANGES[one["name"]])))
        for one in shipped_priors().parameters()
    ]  # fmt: skip
    return markdown(Table(title="", columns=("number", "median", "meaning", "range"), rows=tuple(rows)))


def main(arguments: Sequence[str]) -> None:
    """Print the page."""
    reference = Path(arguments[0])
    series = read_series([reference / "scaling"])
    epochs = epochs_findings([fit_epochs(its) for its in read_workloads(reference / "data_to_target.csv")], [])
    print(HEAD.replace("$P", parameters()))
    print(section(validate(series, "two"), "From two points of a host or more"), end="\n\n")
    print(section(validate(series, "host"), "From inside one host"), end="\n\n")
    print("A link that is known (`--link GBIT,MICROSECONDS --gradient-mb MB`) bounds it: no step is shorter than its "
          "all-reduce.\n`--cluster` takes it from a file; shipped are "
          f"{', '.join(cluster_names())}, each number with its source.\n")  # fmt: skip
    print(tables_section(reference))
    print(step_section())
    print(machine_section())
    print("## Data to the goal\n\n```bash\nbatchscale plan epochs table.csv\n```\n")
    print("E(B) = E_min (1 + B / B_crit) is fitted to the data that a goal needed at each minibatch B.")
    print("It is refused where its points scatter by more than 10 %, where half of them lie more than 10 % from what "
          "the others predict, or where a free exponent of B / B_crit lies outside 0.5 to 2.\n")  # fmt: skip
    print(f"{epochs.answer.replace('; ', ';' + chr(10))}\n\n{markdown(epochs.tables[0])}")
    for warning in epochs.warnings:
        print(f"\n{warning.replace('; ', ';' + chr(10))}.")
    print(f"\n{PLAN}", end="")


if __name__ == "__main__":
    main(sys.argv[1:])
