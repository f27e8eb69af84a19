"""A lock for objects that one thread at a time may use."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ObjectLock:
    """A reentrant lock, as a context, that an object holds while it works; threads wait for each other.

    A copy of the object, also in another process, gets a lock of its own. In a forked child, a lock that another thread
    of the parent held is free, because that thread does not exist there.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ObjectLock], tuple[()]]:
        return ObjectLock, ()

    def _free_in_child(self) -> None:
        if self._lock.acquire(blocking=False):  # free, or held by the thread that forked
            self._lock.release()
        else:
            self._lock = threading.RLock()


_locks: weakref.WeakSet[ObjectLock] = weakref.WeakSet()


def _free_all_in_child() -> None:
    for lock in list(_locks):
        lock._free_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_free_all_in_child)
