"""The benchmark of thousands of ranks: few requests a rank at any size, and a table of them."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "many_ranks.py"


@pytest.fixture(scope="module")
def many_ranks():
    spec = importlib.util.spec_from_file_location("many_ranks", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_thousand_ranks_start_by_at_most_ten_requests_each(many_ranks):
    cost = many_ranks.start(1000, 20_000)
    assert cost.most_requests == 7 + 2  # of rank 0: the name, and what it asks and tells of earlier attempts
    assert cost.seconds < 1.0


def test_requests_a_rank_do_not_grow_with_the_ranks(many_ranks):
    for measure in (many_ranks.start, many_ranks.diagnosis):
        small, large = (measure(size, 50_000) for size in (32, 512))
        assert large.requests <= small.requests < 8
        assert large.most_requests <= small.most_requests + 10  # two a halving


def test_the_table_has_a_line_for_every_case(many_ranks):
    head, *lines = many_ranks.table([4, 8], [20_000, 50_000])
    assert head.split()[0] == "ranks"
    assert [line.split()[:3] for line in lines] == [
        [name, str(size), rate] for name in ("start", "diagnosis") for size in (4, 8) for rate in ("20,000", "50,000")
    ]
