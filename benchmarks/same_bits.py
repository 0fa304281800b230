"""Short runs by two versions of the source, in turn: are their bits the same? No golden value is needed.

    python benchmarks/same_bits.py COMMIT        the working tree against COMMIT, checked out beside it

Prints a line a run; exit code 1 where one differs. Cost: about 10 s a version on one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "tests" / "support" / "golden_runs.py"


def bits(source: Path) -> dict[str, dict[str, str]]:
    """The bits of all runs by the package that lies in ``source``."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    output = subprocess.run([sys.executable, RUNS], env=environment, stdout=subprocess.PIPE, check=True).stdout
    runs: dict[str, dict[str, str]] = json.loads(output)
    return runs


def main(commit: str) -> int:
    """Compare, and tell."""
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", old, commit], check=True)
        try:
            then, now = bits(old / "src"), bits(ROOT / "src")
        finally:
            subprocess.run([*git, "remove", "--force", old], check=True)
    for name, digests in now.items():
        same = [kind for kind, digest in digests.items() if digest == then[name][kind]]
        print(f"{name:14} {'same' if len(same) == len(digests) else 'DIFFERENT'}  weights {digests['weights'][:12]}")
    return int(then != now)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
