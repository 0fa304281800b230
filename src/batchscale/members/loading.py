"""Plugins: found as entry points of installed packages or named for a command, imported once in every process.

A plugin is a module whose import registers, or ``module:function`` with a function without arguments that does.
The names that a command was given stand in an environment variable, so that every process it starts loads them, too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from batchscale.errors import BatchscaleError, UsageError, one_line

GROUP = "batchscale.plugins"
VARIABLE = "BATCHSCALE_PLUGINS"
"""Names of plugins, separated by commas."""


@dataclass(frozen=True)
class Plugin:
    """One that is loaded.

    Args:
        name: its module, or ``module:function``.
        distribution: the package it came with, where that says so.
        version: of that package.
    """

    name: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})" if self.distribution else self.name


_loaded: dict[str, Plugin] = {}
_at_work: list[Plugin] = []
_complete_for: list[str] = []
"""The value of VARIABLE for which all plugins are loaded, as the one item; empty before."""


def at_work() -> str | None:
    """The plugin that is being loaded now, in words."""
    return f"plugin {_at_work[-1]}" if _at_work else None


def loaded() -> list[dict[str, str | None]]:
    """Every loaded plugin, sorted by name: for the records of a run."""
    load()
    return [dict(vars(_loaded[name])) for name in sorted(_loaded)]


def named() -> list[str]:
    """The plugins that a command was given, without those of installed packages."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def load(names: Iterable[str] = ()) -> None:
    """Load all plugins: of installed packages, of the environment, and these, which the environment then names.

    Args:
        names: modules, or ``module:function``.

    Raises:
        UsageError: one is a file's name, cannot be imported, breaks, or registers a name that another has.
    """
    if _at_work:
        return
    wanted = list(dict.fromkeys([*named(), *names]))
    for name in wanted:
        _check_module_name(name)
    if _complete_for == [",".join(wanted)]:
        return
    for entry in metadata.entry_points(group=GROUP):
        package = entry.dist
        plugin = Plugin(entry.value, package.name if package else None, package.version if package else None)
        _load_one(plugin, f"uninstall {plugin.distribution}")
    for name in wanted:
        _load_one(Plugin(name, *_origin(name)), f"leave it out of --plugin and {VARIABLE}")
    if wanted:  # only now: what did not load is named to no later command of this process
        os.environ[VARIABLE] = ",".join(wanted)
    _complete_for[:] = [",".join(wanted)]


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Within it what a plugin prints goes to standard error: standard output is the command's, often one document."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _check_module_name(name: str) -> None:
    """Raise where a plugin is named by its file: the import system would run it first, and then look inside it."""
    path, _, function = name.partition(":")
    if path and "/" not in path and not path.endswith(".py"):
        return
    folder, _, file = path.rstrip("/").rpartition("/")
    module = file.removesuffix(".py") or "MODULE"
    raise UsageError(
        f"plugin {name or repr(name)}: must be a module's name, not a file's: give --plugin "
        f"{module}{function and f':{function}'}, its folder on PYTHONPATH (PYTHONPATH={folder or '.'})"
    )


def _origin(name: str) -> tuple[str | None, str | None]:
    """(distribution, version) of the package that a module belongs to; nothing of one that no package brought."""
    for distribution in metadata.packages_distributions().get(name.partition(":")[0].partition(".")[0], ()):
        return distribution, metadata.version(distribution)
    return None, None


def _load_one(plugin: Plugin, way_out: str) -> None:
    if plugin.name in _loaded:
        return
    _at_work.append(plugin)
    try:
        _check_there(plugin, way_out)
        with aside():
            thing = metadata.EntryPoint(plugin.name, plugin.name, GROUP).load()
            if ":" in plugin.name:
                thing()
    except BatchscaleError as error:
        raise UsageError(f"{_rank()}{error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{_rank()}plugin {plugin}: broke while it was loaded ({one_line(error)}); mend it, or {way_out}"
        ) from error
    finally:
        _at_work.pop()
    _loaded[plugin.name] = plugin


def _check_there(plugin: Plugin, way_out: str) -> None:
    """Tell a module that is not there from one that fails to import another."""
    parts = plugin.name.partition(":")[0].split(".")
    for depth, part in enumerate(parts):
        module, package = ".".join(parts[: depth + 1]), ".".join(parts[:depth])
        is_there = bool(part) and (not package or hasattr(importlib.import_module(package), "__path__"))
        if not is_there or (module not in sys.modules and importlib.util.find_spec(module) is None):
            raise UsageError(
                f"plugin {plugin}: no module {module!r} to import; install it, put its folder on PYTHONPATH, "
                f"or {way_out}"
            )


def _rank() -> str:
    """Which process this is, where it is one of several."""
    return f"rank {os.environ['RANK']}: " if os.environ.get("RANK") and os.environ.get("WORLD_SIZE") != "1" else ""


def way_to_load() -> str:
    """How a name that no family has may still be known: for errors."""
    return f", or one of a plugin ({_rank()}give --plugin MODULE, or install its package)"


def check_same(lists: Sequence[Sequence[Mapping[str, str | None]]]) -> None:
    """Raise where a plugin is not in every process, or of another version.

    Args:
        lists: ``loaded()`` of every rank, in their order.

    Raises:
        UsageError: names the plugin and the ranks.
    """
    versions = [{str(row["name"]): row.get("version") for row in rows} for rows in lists]
    first_rank: dict[str, int] = {}
    for rank, names in enumerate(versions):
        for name in names:
            first_rank.setdefault(name, rank)
    for rank, names in enumerate(versions):
        for name, holder in sorted(first_rank.items()):
            if name not in names:
                raise UsageError(
                    f"plugin {name}: loaded in rank {holder} and missing in rank {rank}; install it on every host, or "
                    f"give --plugin {name} to every process"
                )
            if names[name] != versions[holder][name]:
                raise UsageError(
                    f"plugin {name}: version {versions[holder][name]} in rank {holder}, {names[name]} in rank {rank}; "
                    f"install one version on every host"
                )
