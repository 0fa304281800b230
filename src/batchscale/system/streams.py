"""Standard input, output and error that may be closed or full when a command begins."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, cast


def open_missing() -> None:
    """Put the null device in the place of closed descriptors 0, 1, 2: else the next files opened would get them.

    For programs started from here, too. ``sys.stdout`` and ``sys.stderr``, which are None then, stay for ``guarded``.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, so this one


class Stream:
    """A text stream that never fails: what it could not write is lost, and why is kept.

    Args:
        stream: to write to; None where it was closed before the command began.

    Attributes:
        lost: why something that was written is lost; None where nothing is.
    """

    def __init__(self, stream: Any) -> None:
        self.lost: OSError | None = None
        self._closed = stream is None
        self._stream = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def write(self, text: str) -> int:
        """All of it, or as much as goes."""
        if self._closed and text:
            self.lost = self.lost or OSError(0, "closed")
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._losing():
            self._stream.flush()

    def close(self) -> None:
        """Hand on what was written; the stream itself stays open, unless it is ours."""
        self.flush()
        if self._closed:
            self._stream.close()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error
            # what waits in its buffer would fail again at exit
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[Stream]:
    """Within it ``sys.stdout`` and ``sys.stderr`` exist and never fail; yields the former."""
    output, errors = Stream(sys.stdout), Stream(sys.stderr)
    with contextlib.redirect_stdout(cast(Any, output)), contextlib.redirect_stderr(cast(Any, errors)):
        try:
            yield output
        finally:
            output.close()
            errors.close()
