"""Commands in this process that must be refused."""

from batchscale.cli import main


def refused(capsys, *arguments):
    """The one line on standard error of a command that ends with 2."""
    try:
        code = main(arguments)
    except SystemExit as leaving:
        code = leaving.code
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    return captured.err
