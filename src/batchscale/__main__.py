"""python -m batchscale."""

import sys

from batchscale.system.working_folder import working_folder

if not sys.flags.safe_path and sys.path[0] == working_folder():
    del sys.path[0]  # a random.py there is the user's, never a library's

from batchscale.cli import main

raise SystemExit(main())
