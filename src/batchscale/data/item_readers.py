"""Processes that draw the items of Datasets, each item under a key of its own.

Before ``__getitem__`` the generators of random, numpy and torch are seeded by the item's key, so what an item draws
from them hangs on its key alone: not on the process, nor on what was drawn before it. These are processes, not threads,
because the generators are a process's: here, the training step draws from them.

They are forked, so that any Dataset will do, one defined in a notebook, too. A Dataset that holds a device's tensors
will not: forked processes cannot use a device.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, TypeVar

import numpy as np
import torch

from batchscale.data.items import check_form, form, plain, stacked
from batchscale.errors import DataError, one_line

T = TypeVar("T")
Request = tuple[int, int]
"""An item's number, and 64 random bits that seed its generators."""

_MOST_ITEMS = 32  # of one task of a process
_datasets: Sequence[Any] = ()  # of a process that draws


def _begin(datasets: Sequence[Any], told_to_end: int) -> None:
    """In a new process: keep the Datasets, compute on one core; end when told to, whatever an item is doing, or with
    the process that has started this one."""
    global _datasets
    _datasets = datasets
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes to all: the run needs its items to stop
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        wait([parent.sentinel, told_to_end])
        os._exit(0)

    threading.Thread(target=end_with_it, daemon=True).start()


def _end(pool: ProcessPoolExecutor, read_end: int, write_end: int) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    os.write(write_end, b"e")  # nobody reads it: it is there for all
    os.close(write_end)
    os.close(read_end)


def _drawn(part: int, name: str, request: Request) -> Any:
    number, seed = request
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed >> 1)  # torch.manual_seed takes a trace of the stack for devices to come
    try:
        item = _datasets[part][number]
    except BaseException as error:  # an item's sys.exit() would end the run without a word
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise DataError(
            f"data: {name} item {number}: its __getitem__ failed: {reason}; every number below len() must give an item "
            f"(on the processor, not on a device)"
        ) from None
    try:
        return plain(item)
    except DataError as error:
        raise DataError(f"data: {name} item {number} {error}") from None


def _stack(part: int, name: str, requests: Sequence[Request], first_form: str) -> Any:
    """Columns of these items."""
    pairs = []
    for request in requests:
        pairs.append(_drawn(part, name, request))
        check_form(form(pairs[-1]), first_form, name, request[0])
    return stacked(pairs)


def _twice(part: int, name: str, request: Request) -> tuple[Any, Any]:
    """An item drawn twice under one key."""
    return _drawn(part, name, request), _drawn(part, name, request)


def _result(future: Future[T], name: str) -> T:
    try:
        return future.result()
    except (DataError, BrokenProcessPool):
        raise
    except Exception as error:  # of pickling; it can be of any type
        raise DataError(
            f"data: {name} items cannot be sent from the process that draws them: {one_line(error)}; an item holds "
            f"tensors, arrays, numbers and words"
        ) from None


class ItemReaders:
    """Processes that draw items, as long as this object lives.

    Args:
        datasets: the parts, map-style.
        names: of the parts, for errors.
        processes: how many draw.

    Raises:
        DataError: the system cannot fork.
    """

    def __init__(self, datasets: Sequence[Any], names: Sequence[str], processes: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise DataError(
                "data: items of a Dataset are drawn by forked processes, and this system has none: give tensors, or "
                "lists of items"
            )
        self._datasets, self._names, self._processes = datasets, names, processes
        self._lock = threading.Lock()
        self._given_up = False
        self._start()

    def give_up(self) -> None:
        """End the processes, whatever an item is doing; nobody waits for one any more."""
        self._given_up = True
        self._close()

    def _start(self) -> None:
        fork = multiprocessing.get_context("fork")
        ends = os.pipe()
        self._pool = ProcessPoolExecutor(self._processes, fork, _begin, (self._datasets, ends[0]))
        # Not weakref.finalize: a process of multiprocessing joins its children at its end before that would run.
        self._close = Finalize(self, _end, (self._pool, *ends), exitpriority=10)

    def _submit(self, *arguments: Any) -> Future[Any]:
        # From Python 3.12 on a fork beside threads is warned of. These processes call nothing that threads may hold.
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._pool.submit(*arguments)

    def _retried(self, work: Callable[[], T], part: int) -> T:
        """What some work gives; once more, by new processes, where one has died: a batch system's signal to stop a run
        comes to them, too, and the run needs its items to stop well."""
        pool = self._pool
        try:
            return work()
        except BrokenProcessPool:
            if self._given_up:
                raise
            with self._lock:
                if self._pool is pool:
                    self._close.cancel()
                    self._start()
        try:
            return work()
        except BrokenProcessPool:
            raise DataError(
                f"data: a process that drew {self._names[part]} items has died, twice: its Dataset must live through "
                f"__getitem__ in a forked process (enough memory, no device, no open handle); mend it"
            ) from None

    def stack(self, part: int, requests: Sequence[Request], first_form: str) -> list[Any]:
        """Stacked columns of these items, in chunks, in their order.

        Args:
            part: number of the Dataset.
            requests: whose items.
            first_form: that every item must have.

        Raises:
            DataError: an item that cannot be had, or of another form.
        """
        size = min(max(-(-len(requests) // (2 * self._processes)), 1), _MOST_ITEMS)
        chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
        name = self._names[part]

        def work() -> list[Any]:
            futures = [self._submit(_stack, part, name, chunk, first_form) for chunk in chunks]
            return [_result(future, name) for future in futures]

        return self._retried(work, part)

    def twice(self, part: int, requests: Sequence[Request]) -> list[tuple[Any, Any]]:
        """These items, each drawn twice under one key by one process.

        Raises:
            DataError: an item that cannot be had.
        """

        def work() -> list[tuple[Any, Any]]:
            futures = [self._submit(_twice, part, self._names[part], request) for request in requests]
            return [_result(future, self._names[part]) for future in futures]

        return self._retried(work, part)
