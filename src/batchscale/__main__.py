"""python -m batchscale."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # the working folder: a random.py there is the user's, never a library's

from batchscale.cli import main

raise SystemExit(main())
