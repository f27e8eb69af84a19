"""Files of the kernels are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fermt_kernels.files import atomic_write


def test_bytes_and_writers(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"bytes")
    atomic_write(str(tmp_path / "b"), lambda file: file.write(b"written"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"bytes", "b": b"written"}


def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    for mask in (0o022, 0o077, 0o002):
        before = os.umask(mask)
        try:
            atomic_write(tmp_path / "file", b"")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        atomic_write(target, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic_write(tmp_path / "nowhere" / "file", b"")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    atomic_write(tmp_path / "link", b"through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"through"
