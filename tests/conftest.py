"""Options and fixtures that several test files share."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import hypothesis
import pytest
import torch

from fermt_kernels.backends import BACKENDS
from fermt_kernels.cpp import library
from fermt_kernels.cpp.trace import PARALLEL_FOR
from fermt_kernels.triton.launch import INTERPRETED

from .support import clips
from .support.evaluating import ALONE, run
from .support.tracking import save_steady

ROOT = Path(__file__).parents[1]
collect_ignore = [] if INTERPRETED else ["triton_lane"]  # test_triton.py runs them, in a process of their own
# Those that take CPU tensors; Triton's kernels have lanes of their own (test_triton.py), and benchmarks.gpu on a GPU.
COMPILED = [name for name, module in BACKENDS.items() if name != "reference" and "cpu" in module.DEVICES]

FAST_LANE = "not slow"  # what `make test` gives to -m
X86_ROWS = ("avx512_amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2")
ARM_ROWS = ("neon_i8mm", "neon_dotprod", "neon")
Share = Callable[[int, int], None]  # the body of a parallel region, for shares [begin, end)
UseThreads = Callable[[int, Callable[[list[tuple[int, int]], Share], None]], None]
ISA_ROWS = (*X86_ROWS, *ARM_ROWS, "generic")


# No deadlines: how long an example takes hangs on what else the machine does.
hypothesis.settings.register_profile("fast", deadline=None, max_examples=25)
hypothesis.settings.register_profile("all", deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job, and in what is started here
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("fast" if config.option.markexpr == FAST_LANE else "all")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="fail, rather than skip, where this backend is not usable; may be given more than once",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: with two workers one of them is busy with it while the other does the rest."""
    items.sort(key=lambda item: item.path.name not in ("test_triton.py", "test_build.py"))


@pytest.fixture(params=COMPILED)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that has kernels for the CPU and is not the reference."""
    name = request.param
    if reason := BACKENDS[name].unavailable_reason():
        required = name in request.config.getoption("--require-backend")
        (pytest.fail if required else pytest.skip)(f"backend {name} is not usable: {reason}")
    return name


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def two_threads() -> object:
    """Two threads, and the number before them afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_python() -> Callable[..., str]:
    """Runs code in a new interpreter and returns what it prints; keyword arguments are environment variables."""

    def run(code: str, **environment: str) -> str:
        cleaned = {key: value for key, value in os.environ.items() if not key.startswith("FERMT_")}
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=cleaned | environment, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> library.Library:
    if reason := library.unavailable_reason():
        required = "cpp" in request.config.getoption("--require-backend")
        (pytest.fail if required else pytest.skip)(reason)
    return library.load()


@pytest.fixture
def parallel_for(loaded: library.Library) -> Iterator[UseThreads]:
    """A function that replaces the caller's threads by some number, run by a function of the shares and the body."""
    before, kept = loaded.parallel_for, []

    def use(threads: int, run: Callable[[list[tuple[int, int]], Share], None]) -> None:
        def region(begin: int, end: int, grain: int, body: Callable[..., None], context: int) -> int:
            step = -(-(end - begin) // threads)
            shares = [(first, min(first + step, end)) for first in range(begin, end, step)]
            run(shares, lambda first, last: body(first, last, context))
            return 0

        kept.append(PARALLEL_FOR(region))
        loaded.parallel_for = ctypes.cast(kept[-1], ctypes.c_void_p).value or 0

    yield use
    loaded.parallel_for = before


def forced(loaded: library.Library, row: str) -> Iterator[str]:
    if not loaded.isas().get(row, False):
        pytest.skip(f"this CPU or this build has no {row}")
    before = loaded.isa
    loaded.select_isa(row)
    yield row
    loaded.select_isa(before)


@pytest.fixture
def isa(loaded: library.Library, request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces the instruction set that the test names, for the length of the test."""
    yield from forced(loaded, request.param)


@pytest.fixture
def other_isa(loaded: library.Library, request: pytest.FixtureRequest) -> Iterator[str]:
    """As `isa`, for instruction sets that the library does not take by itself."""
    if request.param == loaded.isa:
        pytest.skip(f"the library takes {request.param} by itself: the tests of the ops run on it")
    yield from forced(loaded, request.param)


@pytest.fixture
def threads_kept() -> Iterator[None]:
    """What a command does to the numbers of threads of its process is undone."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature GOT-10k, validation and test."""
    return clips.got10k(clips.got10k(tmp_path_factory.mktemp("got10k")), "test")


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_steady(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="session")
def whole_run(clips_root: Path, small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `fermt eval` that nothing happened to; its scores lie beside it."""
    folder = tmp_path_factory.mktemp("whole") / "small"
    code, printed = run(clips_root, small_weights, folder, *ALONE, "--json", folder.parent / "scores.json")
    assert code == 0, printed
    return folder
