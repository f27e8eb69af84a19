"""The cache of what is read of annotations: when it is used, when it is not, and what damage does to it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fermt.datasets import TRAINING_SETS, open_set
from fermt.datasets.index import VERSION

from .support import datasets
from .support.datasets import FRAMES, MAKERS, SEQUENCES


@pytest.fixture(params=sorted(MAKERS))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of a data set, and a miniature of it."""
    return request.param, MAKERS[request.param](tmp_path / "root")


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Path]:
    """A miniature's root and the folder of its cache."""
    root, cache = datasets.got10k(tmp_path / "root"), tmp_path / "some" / "cache"
    open_set("got10k", root, cache=cache)
    return root, cache


def forbid_reading(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def read(self: object, unit: str) -> None:
        raise AssertionError(f"{unit} is read")

    monkeypatch.setattr(TRAINING_SETS[name], "read", read)


def test_a_second_start_reads_the_cache_alone(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = made
    first = open_set(name, root, cache=tmp_path / "cache")
    forbid_reading(monkeypatch, name)
    second = open_set(name, root, cache=tmp_path / "cache")
    assert len(first) == len(second) == SEQUENCES
    for i in range(SEQUENCES):
        for a, b in zip(first.annotation(i), second.annotation(i), strict=True):
            assert np.array_equal(a, b)
            assert a.dtype == b.dtype
        assert first.path(i, 0) == second.path(i, 0)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_a_changed_data_set_is_read_again(kept: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    root, cache = kept
    path = root / "train" / "GOT-10k_Train_000003" / "groundtruth.txt"
    path.write_text("1,2,3,4.5\n" * FRAMES)
    assert open_set("got10k", root, cache=cache).annotation(2).boxes[0].tolist() == [1, 2, 3, 4.5]
    assert str(next(cache.glob("*.npz"))) in caplog.text
    caplog.clear()
    assert open_set("got10k", root, cache=cache).annotation(2).boxes[0].tolist() == [1, 2, 3, 4.5]
    assert not caplog.text


def test_another_choice_is_another_file(kept: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    root, cache = kept
    (root / "some.txt").write_text("0")
    assert len(open_set("got10k", root, only=root / "some.txt", cache=cache)) == 1
    assert len(open_set("got10k", root, cache=cache)) == SEQUENCES
    assert len(list(cache.iterdir())) == 2
    assert not caplog.text


class Trap:
    """Leaves a mark if it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_damaged_cache_is_read_again(
    kept: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache = kept
    (path,) = cache.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    trap = np.array([Trap(tmp_path / "sprung")], object)

    def pickled() -> None:
        np.savez(path, **arrays | {"names": trap})

    damages: tuple[Callable[[], object], ...] = (
        lambda: datasets.cut(path),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(pickle.dumps(trap)),
        lambda: np.savez(path, **{key: value for key, value in arrays.items() if key != "valid"}),
        lambda: np.savez(path, **arrays | {"boxes": arrays["boxes"][:-1]}),
        pickled,
    )
    for damage in damages:
        damage()
        caplog.clear()
        assert len(open_set("got10k", root, cache=cache)) == SEQUENCES
        assert "is damaged" in caplog.text
        assert len(open_set("got10k", root, cache=cache).annotation(0).valid) == FRAMES
        assert len(caplog.records) == 1
    assert not (tmp_path / "sprung").exists()
    assert list(cache.iterdir()) == [path]


def test_a_cache_of_another_version_is_read_again(
    kept: tuple[Path, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = kept
    monkeypatch.setattr("fermt.datasets.index.VERSION", VERSION + "x")
    open_set("got10k", root, cache=cache)
    assert "has changed since" in caplog.text


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    read = open_set("got10k", datasets.got10k(tmp_path / "root"), cache=tmp_path / "file" / "cache")
    assert len(read) == SEQUENCES
    assert "cannot be cached in" in caplog.text


def test_without_a_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    root = datasets.got10k(tmp_path / "root")
    open_set("got10k", root, cache=False)
    assert not (tmp_path / "home").exists()
    open_set("got10k", root)
    (path,) = (path for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert path.parent.name == "fermt"
    assert path.name.startswith("got10k-")
