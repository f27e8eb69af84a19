"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fermt_kernels.files import atomic_path, atomic_write

from .support.errors import refused


def test_bytes_and_writers(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"bytes")
    atomic_write(str(tmp_path / "b"), lambda path: path.write_bytes(b"written"))
    atomic_write(tmp_path / "c", "é\n")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "a": b"bytes",
        "b": b"written",
        "c": "é\n".encode(),
    }


def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    for mask in (0o022, 0o077, 0o002):
        path = tmp_path / f"{mask:o}"
        before = os.umask(mask)
        try:
            atomic_write(path, b"")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        atomic_write(target, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic_write(tmp_path / "nowhere" / "file", b"")


def test_a_folder_in_the_files_place_is_found_out_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with refused(IsADirectoryError, "out.csv"), atomic_path(tmp_path / "out.csv"):
        raise AssertionError("the work was done")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_temporary_names_differ(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        atomic_write(tmp_path / "file", lambda path: names.append(path.name) or path.write_bytes(b""))  # type: ignore[func-returns-value]
    assert len(set(names)) == 2
