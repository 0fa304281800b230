"""System calls that a file system, a disk or a sandbox refuses."""

import os


def refusing(number, only=lambda *given: True, otherwise=None):
    """A system call that answers with this error.

    Args:
        number: of the error.
        only: for these arguments.
        otherwise: the call for all others.
    """

    def call(*given, **named):
        if only(*given):
            raise OSError(number, os.strerror(number))
        return otherwise(*given, **named)

    return call
