"""Tables of speeds: what is a series, and what is wrong with a table, in one line."""

import numpy as np
import pytest
from support.commands import refused
from support.speeds import COLUMNS, row, write

from batchscale.cost.speeds.series import known_fault, read_series


def test_rows_of_equal_names_are_a_series_and_equal_counts_count_by_their_median(tmp_path):
    rows = [row(16, 150), row(8, 80), row(16, 190), row(16, 160), row(8, 81, precision="amp")]
    first, second = read_series([write(tmp_path / "a.csv", rows)])
    assert first.devices == (8, 16)
    assert first.speeds == (80, 160)
    assert (second.name.precision, second.speeds) == ("amp", (81,))
    np.testing.assert_allclose(first.hosts, [1, 2])
    np.testing.assert_allclose(np.exp(first.log_seconds), [8 / 80, 16 / 160])


def test_a_folder_is_all_of_its_tables_and_a_series_may_lie_in_several(tmp_path):
    write(tmp_path / "a.csv", [row(8, 80)])
    write(tmp_path / "b.csv", [row(16, 150)], [*COLUMNS[:-1], "examples_per_second"])
    (series,) = read_series([tmp_path])
    assert series.devices == (8, 16)


def test_an_outlier_is_where_the_speed_of_a_device_halves(tmp_path):
    (series,) = read_series([write(tmp_path / "a.csv", [row(8, 80), row(16, 79), row(32, 150)])])
    assert series.outliers == (16,)


def test_known_faults_are_known_by_name_alone():
    from batchscale.cost.speeds.series import SeriesName

    dlperf = "Oneflow-Inc/DLPerf reports/dlperf_benchmark_test_report_v1.md (Oct 2020)"
    system = "4 hosts x 8 V100-SXM2-16GB, InfiniBand 100 Gb/s, MXNet"
    assert "3.5 times" in known_fault(SeriesName(dlperf, system, "resnet50-v1.5", "256", "amp"))
    assert known_fault(SeriesName(dlperf, system, "resnet50-v1.5", "128", "fp32")) is None
    assert known_fault(SeriesName("another", system, "resnet50-v1.5", "256", "amp")) is None


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (row(8, ""), ("row 3", "images_per_second is missing", "above 0")),
        (row(8, -5), ("row 3", "images_per_second=-5")),
        (row(8, "nan"), ("row 3", "images_per_second=nan")),
        (row(8, "fast"), ("row 3", "images_per_second=fast")),
        (row(0, 80), ("row 3", "devices=0")),
        (row("", 80), ("row 3", "devices is missing")),
        (row(8.5, 80), ("row 3", "devices=8.5", "whole number")),
        (row(8, 80, per_host=0), ("row 3", "devices_per_host=0")),
        (row(32, 80, per_host=4), ("row 3", "devices_per_host=4", "8 in another row")),
        (row(8, 80)[:-1], ("row 3", "7 cells for 8 columns")),
    ],
)
def test_what_is_wrong_with_a_row_is_one_line(tmp_path, capsys, bad, parts):
    table = write(tmp_path / "a.csv", [row(16, 150), bad])
    line = refused(capsys, "plan", "validate", str(table))
    for part in ("a.csv", *parts):
        assert part in line


def test_what_is_wrong_with_a_table_is_one_line(tmp_path, capsys):
    def line(path):
        return refused(capsys, "plan", "validate", str(path))

    assert "cannot be read" in line(tmp_path / "none.csv")
    assert "without a CSV" in line(tmp_path)
    (tmp_path / "empty.csv").touch()
    assert "no column source" in line(tmp_path / "empty.csv")
    assert "no row" in line(write(tmp_path / "a.csv", []))
    assert "did you mean device" in line(
        write(tmp_path / "a.csv", [row(8, 80)], ["device", *COLUMNS[:3], *COLUMNS[4:]])
    )
    assert "images_per_second or" in line(write(tmp_path / "a.csv", [row(8, 80)], [*COLUMNS[:-1], "speed"]))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in line(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text('a,"b\n')
    assert "no CSV" in line(tmp_path / "c.csv")
