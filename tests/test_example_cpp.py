"""examples/track.cpp, tracking without Python: it builds against the installed header, and agrees with the Tracker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import fermt
import fermt_kernels as fk
from fermt.tracking.sources import open_source
from fermt_kernels.backends import BACKENDS

from .conftest import ROOT
from .support import golden
from .support.toolchain import compiler, run

FRAMES = 12
PLAYER = (372.0, 108.0, 125.0, 240.0)
CORNER = (561.5, 270.25, 90.0, 95.5)  # its crops reach past two sides of the image
BOX = ",".join(map(str, PLAYER))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The built example."""
    if reason := BACKENDS["cpp"].unavailable_reason():
        required = "cpp" in request.config.getoption("--require-backend")
        (pytest.fail if required else pytest.skip)(f"the compiled library is not usable: {reason}")
    include, library = fk.frame.native()
    built = tmp_path_factory.mktemp("program") / "track"
    flags = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{include}")
    finished = run(*compiler(), *flags, ROOT / "examples" / "track.cpp", library, "-o", built)
    assert finished.returncode == 0, finished.stderr
    return built


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(islice(open_source(ROOT / "examples" / "basketball.mp4"), FRAMES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, frames: list[np.ndarray]) -> Path:
    """The frames, two packed models, and files that are neither."""
    made = tmp_path_factory.mktemp("files")
    for i, frame in enumerate(frames):
        write_ppm(made / f"{i:02}.ppm", frame)
    fk.frame.pack(golden.tracking_model()).save(made / "center.fermt")
    small = fermt.build_model("fermt-corner", patterns=("mixed",), dim=48, num_heads=3)
    fk.frame.pack(small).save(made / "corner.fermt")
    damaged = bytearray((made / "center.fermt").read_bytes())
    (made / "short.fermt").write_bytes(damaged[:-64])
    damaged[5000] ^= 1
    (made / "damaged.fermt").write_bytes(damaged)
    write_ppm(made / "small.ppm", frames[0][:, :320])
    (made / "short.ppm").write_bytes((made / "00.ppm").read_bytes()[:-1])
    return made


def write_ppm(path: Path, image: np.ndarray) -> None:
    header = f"P6 # a comment\n# another\n{image.shape[1]} {image.shape[0]}\n255\n"
    path.write_bytes(header.encode() + image.tobytes())


@pytest.mark.parametrize("box", [PLAYER, CORNER], ids=["inside", "at the corner"])
def test_it_tracks_as_the_tracker_does(
    program: Path, folder: Path, frames: list[np.ndarray], box: tuple[float, ...]
) -> None:
    paths = [folder / f"{i:02}.ppm" for i in range(FRAMES)]
    finished = run(program, folder / "center.fermt", ",".join(map(str, box)), *paths)
    assert finished.returncode == 0, finished.stderr
    found = np.array([[float(number) for number in line.split(",")] for line in finished.stdout.splitlines()])
    tracker = fermt.Tracker(golden.tracking_model().float())
    tracker.init(frames[0], box)
    tracks = [tracker.update(frame) for frame in frames[1:]]
    assert found.shape == (FRAMES - 1, 5)
    # Its crops are OpenCV's to the bit: with a random network, a gray level's difference soon leads elsewhere.
    assert np.abs(found[:, :4] - [track.box for track in tracks]).max() <= 0.5
    assert np.abs(found[:, 4] - [track.score for track in tracks]).max() <= 0.01


BAD: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no arguments": (lambda at: [], "usage: track model.fermt x,y,w,h frame0.ppm frame1.ppm"),
    "one frame": (lambda at: [at / "center.fermt", BOX, at / "00.ppm"], "usage: track"),
    "no model": (lambda at: two(at, "none.fermt"), "none.fermt: No such file or directory"),
    "a folder": (lambda at: two(at, "."), "directory"),
    "no packed model": (lambda at: two(at, "00.ppm"), "00.ppm: this is not a packed model, or it is damaged"),
    "cut short": (lambda at: two(at, "short.fermt"), "short.fermt: this is not a packed model, or it is damaged"),
    "a bit changed": (lambda at: two(at, "damaged.fermt"), "damaged.fermt: the packed model is damaged: its checksum"),
    "corner head": (lambda at: two(at, "corner.fermt"), "corner.fermt: has the corner head"),
    "no frame": (lambda at: two(at, second="none.ppm"), "none.ppm: cannot be read"),
    "no image": (lambda at: two(at, second="center.fermt"), "center.fermt: not a binary PPM (P6)"),
    "half an image": (lambda at: two(at, second="short.ppm"), "short.ppm: cut short"),
    "another size": (lambda at: two(at, second="small.ppm"), "small.ppm: is not of the first frame's size"),
    "three numbers": (lambda at: two(at, box="1,2,3"), "'1,2,3' is not a box: x,y,w,h in pixels"),
    "five numbers": (lambda at: two(at, box="1,2,3,4,5"), "'1,2,3,4,5' is not a box"),
    "no area": (lambda at: two(at, box="9,9,0,5"), "the box 9,9,0,5 has no area or lies outside the first frame"),
    "outside": (lambda at: two(at, box="640,9,5,5"), "lies outside the first frame"),
    "not a number": (lambda at: two(at, box="nan,9,5,5"), "lies outside the first frame"),
}


def two(at: Path, model: str = "center.fermt", *, box: str = BOX, second: str = "01.ppm") -> list[object]:
    """The arguments to track over two frames."""
    return [at / model, box, at / "00.ppm", at / second]


@pytest.mark.parametrize("case", BAD)
def test_it_says_what_is_wrong(program: Path, folder: Path, case: str) -> None:
    arguments, message = BAD[case]
    finished = run(program, *arguments(folder))
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr.startswith("track: ")
    assert message in finished.stderr


def test_the_header_is_c_too(tmp_path: Path) -> None:
    compiler = os.environ.get("CC", "gcc").split()
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler: {compiler[0]} not found")
    shutil.copy(ROOT / "csrc" / "abi" / "fermt.h", tmp_path / "fermt.h")
    (tmp_path / "version.c").write_text('#include "fermt.h"\nint version(void) { return fermt_abi_version(); }\n')
    flags = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    finished = run(*compiler, *flags, tmp_path / "version.c")
    assert finished.returncode == 0, finished.stderr
