"""python -m batchscale, and the command batchscale."""

import sys

from batchscale.system.working_folder import working_folder

if not sys.flags.safe_path and sys.path[0] == working_folder():
    del sys.path[0]  # a random.py there is the user's, never a library's

from batchscale.system.early import leave_early

leave_early()  # before anything that takes long to load

from batchscale.cli import main  # noqa: E402 (it takes long to load)

if __name__ == "__main__":
    raise SystemExit(main())
