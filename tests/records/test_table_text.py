"""The one writer of tables for terminals: every cell whole, columns that line up, numbers to the right."""

import re

from hypothesis import given
from hypothesis import strategies as st

from batchscale.records.findings import Table
from batchscale.records.text import as_text


def table_of(columns, *rows):
    return Table(title="a title", columns=columns, rows=rows, caption="a caption")


def test_numbers_stand_to_the_right_and_words_to_the_left():
    rows = ("plain", "1,024", 1.5, None), ("a longer name", "8", 12, "not now"), ("x", "0.5 %", None, "")
    assert as_text(table_of(("name", "images/s", "iqr", ""), *rows)).splitlines() == [
        "name           images/s  iqr",
        "plain             1,024  1.5  -",
        "a longer name         8   12  not now",
        "x                 0.5 %    -",
    ]


def test_without_the_names_of_the_columns_only_rows_are_written():
    assert as_text(table_of(("name", "value"), ("lr", "linear"), ("steps", "9 of 10")), columns=False) == (
        "lr     linear\nsteps  9 of 10"
    )
    assert as_text(table_of(("a", "b"))) == "a  b"


def test_what_looks_like_a_mark_is_written_as_it_is_and_nothing_is_folded():
    name, long = "[bold]x[/] :smile: \udcff", "w" * 3000
    lines = as_text(table_of(("name", "long"), (name, long))).splitlines()
    assert lines[1] == f"{name}  {long}"


words = st.text("abcxyz[]:.,-%1", max_size=9).map("w".__add__)  # none of them a number


@given(st.lists(st.tuples(words, st.integers(), words), min_size=1, max_size=6))
def test_every_cell_is_there_and_the_columns_line_up(rows):
    lines = as_text(table_of(("first", "second", "third"), *rows)).splitlines()
    assert [line.split() for line in lines[1:]] == [[first, str(number), third] for first, number, third in rows]
    places = [[match.span() for match in re.finditer(r"\S+", line)] for line in lines]
    assert {first[0] for first, _, _ in places} == {0}
    assert len({second[1] for _, second, _ in places}) == len({third[0] for _, _, third in places}) == 1


def test_a_cell_stays_in_its_line():
    assert as_text(table_of(("name", "next"), ("a\nb\tc\r\x07", "d"))).splitlines() == ["name   next", "a b c  d"]
