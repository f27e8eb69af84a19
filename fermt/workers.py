"""Worker processes: how they start, and that they end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.context import BaseContext

from .signals import STOPPING


def worker_context(preload: str) -> BaseContext:
    """Returns a multiprocessing context that never forks a process with threads.

    A child of such a process could wait forever for a lock that another thread held.

    Args:
        preload: a module that is slow to import; a fork server, where the system has one, imports it once for all.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def leave_signals() -> None:
    """Makes this worker ignore signals to stop, which reach a whole group of processes: its parent ends it."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """Ends this worker when its parent ends, even if that was killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
