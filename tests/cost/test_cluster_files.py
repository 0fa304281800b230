"""Clusters as files: each number has its source, and what is wrong with a file is one line."""

import json

import pytest
import yaml
from support.commands import refused
from support.speeds import row, write

from batchscale.cli import main
from batchscale.cost import cluster
from batchscale.cost.cluster import cluster_names, read_cluster
from batchscale.errors import DataError

GOOD = "device: P100\ndevices_per_host: {value: 8, source: the data sheet}\n"
LINK = "between_gbit_per_second: {value: 1, source: the data sheet}\n"


def test_the_shipped_ones_are_read_and_each_of_their_numbers_has_a_source():
    assert {"big-basin", "dgx-1", "dgx-a100", "dgx-h100", "xe8545", "ethernet-cloud"} <= set(cluster_names())
    for name in cluster_names():
        text = (cluster.resources.files("batchscale.cost") / "clusters" / f"{name}.yaml").read_text()
        for value in yaml.safe_load(text).values():
            assert isinstance(value, str) or (set(value) == {"value", "source"} and value["source"])
        assert read_cluster(name).link().gbit_per_second > 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (GOOD + "between_gbit_per_second: 50\n", "between_gbit_per_second"),
        (GOOD + "between_gbit_per_second: {value: 50}\n", "between_gbit_per_second.source"),
        (GOOD + "between_gbit_per_second: {value: 50, source: ''}\n", "between_gbit_per_second.source"),
        (GOOD + "between_gbit_per_second: {value: -1, source: the data sheet}\n", "between_gbit_per_second.value"),
        (LINK + "device: P100\ndevices_per_host: {value: 0, source: the data sheet}\n", "devices_per_host.value"),
        (GOOD + LINK + "speed: {value: 1, source: the data sheet}\n", "speed"),
        (GOOD, "between_gbit_per_second"),
        ("- 1\n", "the document"),
        ("a: [", "not a YAML"),
    ],
)
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
