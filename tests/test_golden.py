"""What a redesign must leave as it is: the bits of runs, the public names, the keys of result.json, identities."""

import json
from pathlib import Path

import pytest
from support import golden_runs, public

_HERE = Path(__file__).parent / "support"
GOLDEN = json.loads((_HERE / "golden.json").read_text(encoding="utf-8"))
PUBLIC = json.loads((_HERE / "public.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", golden_runs.RUNS)
def test_a_run_has_the_bits_it_always_had(name, tmp_path):
    conditions = golden_runs.conditions()
    if conditions not in GOLDEN:
        pytest.skip(f"no golden bits for {conditions}; benchmarks/same_bits.py compares with a commit instead")
    assert golden_runs.bits(name, tmp_path / "run") == GOLDEN[conditions][name]


def test_every_golden_run_is_known_under_all_conditions():
    for runs in GOLDEN.values():
        assert set(runs) == set(golden_runs.RUNS)


def test_public_names_keep_their_parameters():
    now = public.public_names()
    for name, parameters in PUBLIC["public_names"].items():
        assert name in now, f"{name} is gone"
        assert set(parameters) <= set(now[name]), f"{name} lost a parameter, or its default"
        positional = [p for p in now[name] if p in parameters]
        assert positional == parameters, f"{name} changed the order of its parameters"
        added = [p for p in now[name] if p not in parameters and "(by keyword)" not in p and "=" not in p]
        assert not added or added[0].startswith("*") or name == "Recipe", f"{name} now demands {added}"


def test_result_json_keeps_its_keys():
    assert set(PUBLIC["result_keys"]) <= set(public.result_keys())


def test_recipes_keep_their_identity_so_that_runs_on_disk_go_on():
    now = public.identities()
    assert {name: now.get(name) for name in PUBLIC["identities"]} == PUBLIC["identities"]
