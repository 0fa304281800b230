"""Programs that take orders as a framework's do, and fail when asked to: for tests of the parent."""

from __future__ import annotations

import json
from pathlib import Path

_PROGRAM = '''"""A fake of a framework: its losses hang on the examples and the rates that it is given."""
import json, os, sys, time
from pathlib import Path
from protocol import begin, serve

FAULT, FOLDER = {fault!r}, Path({folder!r})
WORK = begin()
STARTED = FOLDER / (Path(__file__).stem + "-" + os.environ["RANK"])
if FAULT == "port" and not STARTED.exists():
    STARTED.touch()
    sys.exit("RuntimeError: bind: Address already in use")
if FAULT == "import":
    import no_such_framework
import numpy as np

class Fake:
    def __init__(self, work):
        pass

    def steps(self, setting):
        images, targets = WORK.examples("train")
        rows, rates = WORK.rows(setting), setting.learning_rates()
        total = 0
        while True:
            for row, rate in zip(rows, rates):
                total += 1
                if setting.per_process > 8 and total > 3:
                    self.fail()
                begun = time.monotonic()
                loss = float(images[row].mean() + targets[row].mean() + rate)
                yield loss + (0.05 if FAULT == "other work" else 0.0)
                with (FOLDER / "steps.jsonl").open("a") as file:
                    print(json.dumps([Path(__file__).stem, begun, time.monotonic()]), file=file)

    def fail(self):
        if FAULT == "dies" and WORK.rank == 0:
            print("RuntimeError: no such kernel", file=sys.stderr, flush=True)
            os._exit(3)
        if FAULT == "hangs" and WORK.rank:
            time.sleep(600)
        if FAULT == "memory" and WORK.rank == 0:
            os.kill(os.getpid(), 9)

    def predict(self, images):
        return np.eye(10, dtype=np.float32)[np.arange(len(images)) % 10]

serve(WORK, Fake, version="fake")
'''


def write_fake(folder: Path, name: str, fault: str = "") -> str:
    """The program of a fake.

    Args:
        folder: where it is written, and where it tells its steps.
        name: of the contender.
        fault: "", or "dies", "hangs", "memory" (while it is timed), "import", "port" (at its first start), "other
            work" (losses are others).

    Returns:
        Its path.
    """
    path = folder / f"{name}.py"
    path.write_text(_PROGRAM.format(fault=fault, folder=str(folder)), encoding="utf-8")
    return str(path)


def steps_taken(folder: Path) -> list[tuple[str, float, float]]:
    """(contender, begun, ended) of every step of all fakes, in the order of their beginning."""
    lines = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((tuple(json.loads(line)) for line in lines), key=lambda step: step[1])
