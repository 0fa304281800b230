"""System calls that a file system, a disk or a sandbox refuses."""

import os


def refusing(number, only=lambda *arguments: True, otherwise=None):
    """A system call that answers with this error.

    Args:
        number: of the error.
        only: for these arguments.
        otherwise: the call for all others.
    """

    def call(*arguments, **named):
        if only(*arguments):
            raise OSError(number, os.strerror(number))
        return otherwise(*arguments, **named)

    return call
