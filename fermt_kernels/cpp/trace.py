"""Traces of a frame's loops: which pieces they are divided into for a number of threads, and how long each takes."""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from . import library

MAX_THREADS = 64  # of a team: kMaxTeam in csrc/abi/team.h

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
PARALLEL_FOR = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _BODY, ctypes.c_void_p)
_TRACE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


class Piece(NamedTuple):
    """Items [begin, end) of all `items` of one loop of a frame, and how long they took."""

    loop: int
    items: int
    begin: int
    end: int
    nanoseconds: int


@contextmanager
def _as_one_of(threads: int) -> Iterator[list[Piece]]:
    """Frames run on the calling thread alone, divided as for `threads`; collects their pieces."""
    loaded, pieces = library.load(), []
    trace = _TRACE(lambda *values: pieces.append(Piece(*values)))

    def first_share(begin: int, end: int, grain: int, body: Callable[..., None], context: int) -> int:
        body(begin, begin + -(-(end - begin) // threads), context)
        return 0

    own_threads = PARALLEL_FOR(first_share)
    before, loaded.parallel_for = loaded.parallel_for, ctypes.cast(own_threads, ctypes.c_void_p).value or 0
    loaded.trace_loops(trace)
    try:
        yield pieces
    finally:
        loaded.trace_loops(None)
        loaded.parallel_for = before


def pieces_of_frame(frame: Callable[[], object], threads: int, repeat: int = 1) -> list[Piece]:
    """Runs a frame on the calling thread, divided as for `threads`.

    Args:
        frame: encodes a template or tracks, in one call of the library. No other thread may do so at that time.
        threads: how many threads to divide the loops for, 1 to `MAX_THREADS`.
        repeat: how often to run it; each piece has the shortest of its times.

    Raises:
        ValueError: `threads` or `repeat` is out of range.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must be from 1 to {MAX_THREADS}, got {threads}")
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, got {repeat}")
    shortest: list[Piece] = []
    for _ in range(repeat):
        with _as_one_of(threads) as pieces:
            frame()
        if not shortest:
            shortest = pieces
        shortest = [min(both, key=lambda piece: piece.nanoseconds) for both in zip(shortest, pieces, strict=True)]
    return shortest


def evened(pieces: Sequence[Piece]) -> list[Piece]:
    """Gives each item the mean time of its loop's items, so that no piece stands out for what else the machine did."""
    total: dict[int, int] = {}
    for piece in pieces:
        total[piece.loop] = total.get(piece.loop, 0) + piece.nanoseconds
    return [each._replace(nanoseconds=total[each.loop] * (each.end - each.begin) // each.items) for each in pieces]


def schedule(pieces: Sequence[Piece], threads: int) -> int:
    """Computes how long `threads` threads take for all pieces, in nanoseconds, if the one that is free takes the next.

    A loop begins when the one before it is done.
    """
    loop, free = -1, [0] * threads
    for piece in pieces:
        if piece.loop != loop:
            loop, free = piece.loop, [max(free)] * threads
        heapq.heapreplace(free, free[0] + piece.nanoseconds)
    return max(free)
