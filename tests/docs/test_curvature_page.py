"""The Python of the page on curvature runs as it stands."""

import contextlib
import io

from support.pages import ROOT, blocks

(CODE,) = (block.text for block in blocks(ROOT / "docs/do/measure-curvature.md") if block.language == "python")


def test_a_module_is_measured():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(CODE, "page", "exec"), {"__name__": "__main__"})
    eigenvalues, trace, noise_scale = printed.getvalue().splitlines()
    assert len(eigenvalues.split()) == 4
    middle, low, high = map(float, trace.split())
    assert low <= middle <= high
    assert "examples, " in noise_scale
