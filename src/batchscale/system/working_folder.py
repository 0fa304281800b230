"""The working folder, which may have been deleted. Imports os alone: it is asked before that folder leaves sys.path."""

import os


def working_folder() -> str | None:
    """Its path; None where it has none any more."""
    try:
        return os.getcwd()
    except OSError:
        return None
