"""A measure's package as a function: what it measures is its name, so its name is what one calls."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CalledPackage(ModuleType):
    """A package whose call is that of ``of_own`` in its ``own.py``, which is loaded by it."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return import_module(f"{self.__name__}.own").of_own(*arguments, **settings)


def may_be_called(package: str) -> None:
    """Let a package of a measure be called; said once, in its ``__init__``."""
    sys.modules[package].__class__ = CalledPackage
