"""Temporary paths of atomic writes: their names, what an error leaves, and what a killed process left."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import fermt
from fermt_kernels.files import MARK, atomic_path, atomic_write, delete_leftovers

from .support.packed import CONFIGS


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise KeyError
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass  # nothing was written
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


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
        assert (first.suffix, second.suffix) == (".npz", MARK)
        for path in (first, second):
            path.write_text("")
    for name in (first.name, second.name, ".b.01234567.tmp", ".lock", "a.tmp"):
        (tmp_path / name).write_text("")
    delete_leftovers(tmp_path, "a*")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.tmp", ".lock", ".b.01234567.tmp"}
    delete_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.tmp", ".lock"}


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
    with pytest.raises(OSError), atomic_path(tmp_path / "none" / "a.txt"):
        pytest.fail("the work began")
