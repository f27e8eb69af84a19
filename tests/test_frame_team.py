"""A frame's loops by a team of threads: how busy it keeps them, and the same bits however they come and go."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.cpp import library
from fermt_kernels.cpp.trace import MAX_THREADS, Piece, evened, pieces_of_frame, schedule

from .conftest import ISA_ROWS, Share, UseThreads
from .support.packed import sharpened, small_model

pytestmark = pytest.mark.usefixtures("loaded")
BUSY = {2: 0.95, 4: 0.9, 6: 0.9, 8: 0.85, 16: 0.75}  # threads: the least share of their time that a frame uses


def frame(model: fermt.FERMT, dtype: torch.dtype) -> Callable[[], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    config = model.config
    template, search = (
        torch.randint(256, (2, size, size, 3), generator=generator, dtype=torch.uint8)
        for size in (config.template_size, config.search_size)
    )
    packed = fk.frame.pack(model, dtype, calibration=(template, search) if dtype == torch.int8 else None)
    cache = fk.frame.encode_template(packed, template[0])
    return lambda: fk.frame.track_frame(packed, [cache], search[:1])


@pytest.fixture(scope="module")
def full_size() -> Callable[[], dict[str, Tensor]]:
    return frame(fermt.build_model("fermt").eval(), torch.float32)


@pytest.mark.parametrize("threads", BUSY)
def test_threads_are_kept_busy(full_size: Callable[[], object], threads: int) -> None:
    """By each loop's mean time an item, so that another process on this machine changes no result."""
    pieces = evened(pieces_of_frame(full_size, threads, repeat=2))
    if library.load().isa == "avx512_amx" and threads in (6, 16):
        pytest.skip(
            "tiles of AMX take 32 tokens at once, of which there are 8 in 256: 6 and 16 threads share them unevenly"
        )
    assert sum(piece.nanoseconds for piece in pieces) / threads / schedule(pieces, threads) >= BUSY[threads]


def test_a_schedule_gives_each_piece_to_the_thread_that_is_free() -> None:
    pieces = [Piece(0, 3, 0, 1, 5), Piece(0, 3, 1, 2, 2), Piece(0, 3, 2, 3, 4), Piece(1, 1, 0, 1, 7)]
    assert [schedule(pieces, threads) for threads in (1, 2, 3)] == [18, 13, 12]
    assert [piece.nanoseconds for piece in evened(pieces)] == [3, 3, 3, 7]


@pytest.mark.parametrize("threads", [0, MAX_THREADS + 1])
def test_a_number_of_threads_that_no_team_has(threads: int) -> None:
    with pytest.raises(ValueError, match=str(threads)):
        pieces_of_frame(lambda: None, threads)


def one_after_the_other(shares: list[tuple[int, int]], run: Share) -> None:
    for share in reversed(shares):
        run(*share)


def only_the_first(shares: list[tuple[int, int]], run: Share) -> None:
    run(*shares[0])


def at_once(shares: list[tuple[int, int]], run: Share) -> None:
    threads = [threading.Thread(target=run, args=share) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def one_by_one_late(shares: list[tuple[int, int]], run: Share) -> None:
    def late(share: tuple[int, int], seconds: float) -> None:
        time.sleep(seconds)
        run(*share)

    draw = random.Random(0)
    threads = [threading.Thread(target=late, args=(share, draw.uniform(0, 2e-3))) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("head", ["center", "corner"])
@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
def test_the_same_bits_whoever_takes_the_items(
    head: str, dtype: torch.dtype, isa: str, parallel_for: UseThreads
) -> None:
    track = frame(sharpened(small_model(head)), dtype)
    expected = track()
    for run in (one_after_the_other, only_the_first, at_once, one_by_one_late):
        for threads in (1, 2, 3, 5, 16, 2 * MAX_THREADS):
            parallel_for(threads, run)
            found = track()
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                assert torch.equal(found[name], values), (run.__name__, threads, name)
