"""What `plan` writes, and what it leaves alone: inputs, and whatever no plan has written."""

import json

import pytest
from support.commands import refused

from batchscale.cli import main

PLAN = ("plan", "imagenet-resnet50-1h", "--cluster", "dgx-a100", "--devices", "8,16")
HOLDS = {b: 30 * (1 + b / 4000) for b in (256, 512, 1024, 4096, 16384)}


def needed(path, values):
    rows = [f"a,epochs,{minibatch},{value}" for minibatch, value in values.items()]
    path.write_text("\n".join(["benchmark,unit,minibatch,mean_to_target", *rows]))
    return path


def test_the_table_that_is_read_is_never_written(capsys, tmp_path):
    path = needed(tmp_path / "a.csv", HOLDS)
    text = path.read_text()
    (tmp_path / "link.csv").symlink_to(path)
    for out in (path, tmp_path / "link.csv"):
        assert "is the table that is read; give another" in refused(
            capsys, "plan", "epochs", str(path), "--out", str(out)
        )
        assert "is the table that is read; give another" in refused(
            capsys, "plan", "priors", str(path), "--out", str(out)
        )
    assert path.read_text() == text


def test_a_file_of_somebody_is_left_alone_and_an_earlier_one_of_ours_written_anew(capsys, tmp_path):
    path, out = needed(tmp_path / "a.csv", HOLDS), tmp_path / "out.json"
    command = ("plan", "epochs", str(path), "--out", str(out))
    assert main(command) == main(command) == 0
    assert json.loads(out.read_text())[0]["benchmark"] == "a"
    for text in ("my notes", '{"mine": 1}', '[{"benchmark": "a"}]'):
        out.write_text(text)
        capsys.readouterr()
        assert "holds something that this command has not written" in refused(capsys, *command)
        assert out.read_text() == text
    assert "is a folder" in refused(capsys, *command[:-1], str(tmp_path))


def test_a_table_of_which_a_plan_takes_nothing_is_told_and_nothing_written(capsys, tmp_path):
    path = needed(tmp_path / "a.csv", {8: 3, 16: 4})
    assert main(["plan", "epochs", str(path), "--out", str(tmp_path / "out.json")]) == 0
    assert "out.json: not written: a plan can take no workload of the table" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("text", ["my notes", None])
def test_a_folder_that_holds_something_else_is_left_alone(capsys, tmp_path, text):
    folder = tmp_path / "plan"
    assert main([*PLAN, "--out", str(folder)]) == main([*PLAN, "--out", str(folder)]) == 0  # a plan's own: anew
    kept = folder / "findings.json"
    text = text or json.dumps(json.loads(kept.read_text()) | {"kind": "steps-to-target"})
    kept.write_text(text)
    page = (folder / "report.html").read_bytes()
    capsys.readouterr()
    assert "not of a plan; give another --out DIR (nothing was changed)" in refused(capsys, *PLAN, "--out", str(folder))
    assert (kept.read_text(), (folder / "report.html").read_bytes()) == (text, page)
    kept.unlink()
    assert "holds other files" in refused(capsys, *PLAN, "--out", str(folder))
