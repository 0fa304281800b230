"""Clusters as files: each number has its source, and what is wrong with a file is one line."""

import json

import pytest
import yaml
from support.commands import refused
from support.speeds import row, write

from batchscale.cli import main
from batchscale.cost.clusters import cluster
from batchscale.cost.clusters.cluster import cluster_names, read_cluster
from batchscale.errors import DataError

GOOD = "device: P100\ndevices_per_host: {value: 8, source: the data sheet}\n"
LINK = "between_gbit_per_second: {value: 1, source: the data sheet}\n"


def unsourced(part):
    """Numbers that stand anywhere but beside their source, in a mapping that has one."""
    parts = part if isinstance(part, list) else part.values()
    for value in parts:
        if isinstance(value, dict | list):
            yield from unsourced(value)
        elif not isinstance(value, str) and not part.get("source"):
            yield value


def test_the_shipped_ones_are_read_and_each_of_their_numbers_has_a_source():
    assert {"big-basin", "dgx-1", "dgx-a100", "dgx-h100", "xe8545", "ethernet-cloud"} <= set(cluster_names())
    for name in cluster_names():
        text = (cluster.resources.files("batchscale.cost.clusters") / f"{name}.yaml").read_text()
        assert not list(unsourced(yaml.safe_load(text)))
        assert read_cluster(name).link().gbit_per_second > 0


LARGE = "device: X\ndevices_per_host: {value: 100000000000, source: the data sheet}\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (GOOD + "between_gbit_per_second: 50\n", r"gbit_per_second=50: must be a mapping of value .* and source"),
        (GOOD + "between_gbit_per_second: {value: 50}\n", "between_gbit_per_second.source: missing; write for example"),
        (GOOD + "between_gbit_per_second: {value: 50, source: ''}\n", "second.source='': must have at least 8 char"),
        (GOOD + "between_gbit_per_second: {value: 50, source: mine, by hand}\n", "holds a comma into quotes"),
        (GOOD + "between_gbit_per_second: {value: -1, source: the data sheet}\n", "between_gbit_per_second.value=-1: "),
        (GOOD + "between_gbit_per_second: {value: 1e300, source: the data sheet}\n",
         r"second.value=1e\+300: must be a number of 0.001 to 1,000,000 \(Gbit/s\)"),
        (GOOD + "between_gbit_per_second: {value: lots, source: the data sheet}\n", "value='lots': .* without quotes"),
        (LINK + "device: P100\ndevices_per_host: {value: 0, source: the data sheet}\n", "_per_host.value=0: input"),
        (LINK + LARGE, r"devices_per_host.value=1e\+11: must be a number of 1 to 65,536"),
        (GOOD + LINK + "peak_teraflops: {fp32: 9.3}\n", "peak_teraflops.fp32=9.3: "),
        (GOOD + LINK + "peak_teraflops: {fp32: {value: 1e9, source: the data sheet}}\n", r"fp32.value=1e\+09: must be"),
        (GOOD + LINK + "peak_teraflops: {fp8: {value: 1, source: the data sheet}}\n", "flops.fp8='fp8': input"),
        (GOOD + LINK + "jitter_percent: {value: -1, source: the data sheet}\n", "jitter_percent.value=-1: "),
        (GOOD + LINK + "jitter_percent: {value: 500, source: the data sheet}\n", "jitter_percent.value=500: must be"),
        (GOOD + LINK + "device_mtbf_hours: {value: 0.001, source: the data sheet}\n", "hours.value=0.001: must be"),
        (GOOD + LINK + "jitter: {value: 1, source: the data sheet}\n", "jitter: unknown; .* entry is jitter_percent"),
        (GOOD + LINK + "rates: [{nets: x, value: 1, source: the data sheet}]\n", r"entry is rates\[0\].net$"),
        (GOOD + LINK + "device: P200\n", "the key 'device' stands twice"),
        (GOOD, "between_gbit_per_second: missing, .* hosts: {value: 1"),
        (LINK, "device: missing; write device"),
        ("", "the document is empty: it must have entries"),
        ("- 1\n", "the document is list, and no mapping"),
        ("a: [", "not a plain YAML document: .*; correct it"),
        ("{device: x, devices_per_host: {value: 0, source: the data sheet}}", "devices_per_host.value=0: "),
        ('{"device": "x", "device": "y"}', "the key 'device' stands twice"),
    ],
)  # fmt: skip
def test_a_number_without_a_source_or_a_sense_is_refused(tmp_path, text, part):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match=part) as caught:
        read_cluster(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)


def test_a_cluster_stands_for_its_link(tmp_path, capsys):
    table = write(tmp_path / "a.csv", [row(1, 110), row(8, 800), row(64, 5000)])
    (tmp_path / "c.yaml").write_text(GOOD + LINK)
    common = ["plan", "validate", str(table), "--calibrate", "host", "--json"]
    answers = []
    for flags in (["--cluster", str(tmp_path / "c.yaml")], ["--link", "1,0"]):
        assert main([*common, *flags, "--gradient-mb", "100"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert main([*common, "--cluster", "dgx-1"]) == 0
    captured = capsys.readouterr()
    assert "without --gradient-mb" in captured.err
    assert json.loads(captured.out)["floor"] is None


def test_an_unknown_cluster_and_both_flags_are_one_line(tmp_path, capsys):
    table = str(write(tmp_path / "a.csv", [row(1, 110), row(8, 800), row(64, 5000)]))
    line = refused(capsys, "plan", "validate", table, "--calibrate", "host", "--cluster", "dgx-a10")
    assert "did you mean dgx-a100" in line
    both = refused(capsys, "plan", "validate", table, "--cluster", "dgx-1", "--link", "1,0")
    assert "not allowed with" in both
    assert "--calibrate=two" in refused(capsys, "plan", "validate", table, "--cluster", "dgx-1")
