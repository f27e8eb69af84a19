"""Temporary paths of atomic writes: their names, what an error leaves, and what a killed process left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fermt
from fermt_kernels import files
from fermt_kernels.files import TEMPORARY_MARK, atomic_path, atomic_write, delete_leftovers

from .conftest import ROOT
from .support.errors import refused
from .support.packed import CONFIGS

# Holds two temporary files open, and says so.
WRITER = """
import sys, time
from fermt_kernels.files import atomic_path
with atomic_path(sys.argv[1]) as plain, atomic_path(sys.argv[1], keep_suffix=True) as suffixed:
    plain.write_text("half")
    print(flush=True)
    time.sleep(600)
"""


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to two temporary files for `path`; killed afterwards."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise KeyError
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.unlink()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for target in ("there/a.txt", "there/b.txt"):  # one that is there, and one that is not
        (tmp_path / "there" / "a.txt").write_text("old")
        (tmp_path / "link.txt").unlink(missing_ok=True)
        (tmp_path / "link.txt").symlink_to(target)
        atomic_write(tmp_path / "link.txt", "new")
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / target).read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        atomic_write(tmp_path / "loop", "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.txt", "link.txt", "loop", "there"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_or_device_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with refused(OSError, name, "pipe or device"):
            atomic_write(tmp_path / name, "new")
    assert (tmp_path / "pipe").is_fifo()
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "é" * 120 + ".txt"])
def test_a_name_as_long_as_the_system_takes(name: str, tmp_path: Path) -> None:
    for keep_suffix in (True, False):
        with atomic_path(tmp_path / name, keep_suffix=keep_suffix) as temporary:
            temporary.name.encode()
            temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    os.chown(tmp_path / "a.txt", 12345, 12346)
    (tmp_path / "a.txt").chmod(0o640)
    atomic_write(tmp_path / "a.txt", "new")
    status = (tmp_path / "a.txt").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o640)


def test_a_writer_gets_the_suffix_and_other_content_matches_no_pattern(tmp_path: Path) -> None:
    suffixes: list[str] = []
    atomic_write(tmp_path / "a.png", lambda path: suffixes.append(path.suffix) or path.write_bytes(b""))  # type: ignore[func-returns-value]
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("")
        assert not list(tmp_path.glob("*.txt"))
    assert suffixes == [".png"]


def test_leftovers_are_deleted_by_stem(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.npz", keep_suffix=True) as first, atomic_path(tmp_path / "a.npz") as second:
        assert first != second
        assert {first.parent, second.parent} == {tmp_path}
        assert (first.suffix, second.suffix) == (".npz", TEMPORARY_MARK)
        for path in (first, second):
            path.write_text("")
    for name in (first.name, second.name, ".b.01234567.tmp", ".lock", "a.tmp"):
        (tmp_path / name).write_text("")
    delete_leftovers(tmp_path, "a*")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.tmp", ".lock", ".b.01234567.tmp"}
    delete_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.tmp", ".lock"}


@pytest.mark.skipif(os.name != "posix", reason="the locks and signals are those of POSIX")
@pytest.mark.parametrize("name", ["a.txt", "[a]*.mp4"])
def test_the_next_writer_deletes_what_a_killed_one_left_and_nothing_of_a_living_one(name: str, tmp_path: Path) -> None:
    def temporary_files() -> int:
        return len(list(tmp_path.glob(".*")))

    target = tmp_path / name
    with writing(target) as process:
        assert temporary_files() == 2
        atomic_write(target, "new")
        delete_leftovers(tmp_path)
        assert temporary_files() == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        atomic_write(tmp_path / "other.txt", "new")  # no business of another file's writer
        assert temporary_files() == 2
        atomic_write(target, "newer")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "newer", "other.txt": "new"}


def test_a_leftover_that_cannot_be_deleted_stops_no_writer(tmp_path: Path) -> None:
    (tmp_path / ".a.01234567.tmp").mkdir()
    atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="the locks are those of POSIX")
def test_a_file_that_was_just_deleted_as_a_leftover_is_created_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, between the creation and the lock."""
    lock, names = files.fcntl.flock, []

    def late(file: Any, how: int) -> None:
        lock(file, how)
        names.extend(tmp_path.glob(".*"))
        if len(names) == 1:
            names[0].unlink()

    monkeypatch.setattr(files.fcntl, "flock", late)
    atomic_write(tmp_path / "a.txt", "new")
    assert len(set(names)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="the locks are those of POSIX")
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written, and nothing is deleted, for its writer may be alive."""

    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", none)
    (tmp_path / ".a.01234567.tmp").touch()
    atomic_write(tmp_path / "a.txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".a.01234567.tmp"}


def test_a_file_put_in_place_of_the_temporary_one_is_refused(tmp_path: Path) -> None:
    """It has no lock, so that another process might have deleted it."""
    with refused(OSError, tmp_path / "a.txt"), atomic_path(tmp_path / "a.txt") as temporary:
        (tmp_path / "b").touch()
        (tmp_path / "b").replace(temporary)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_modes_are_those_of_the_umask_or_of_the_replaced_file(tmp_path: Path) -> None:
    def private(path: Path) -> None:
        path.write_text("")
        path.chmod(0o600)

    before = os.umask(0o027)
    try:
        for name, content in (("text", "a"), ("writer", private)):
            atomic_write(tmp_path / name, content)
        fermt.save(fermt.build_model(CONFIGS["center"]), tmp_path / "small.safetensors")
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
        for name, content in (("text", "a"), ("writer", private)):
            (tmp_path / name).chmod(0o604)
            atomic_write(tmp_path / name, content)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_written_to_is_found_out_before_the_work(tmp_path: Path) -> None:
    with refused(OSError, tmp_path / "none" / "a.txt"), atomic_path(tmp_path / "none" / "a.txt"):
        pytest.fail("the work began")
