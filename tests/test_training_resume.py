"""A run that is cut off at any moment, killed or asked to stop, and goes on: it ends as if nothing had happened."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fermt
from fermt import checkpoints
from fermt.data.pairs import PairSource
from fermt.training import batches, state

from .conftest import ROOT
from .support import micro
from .support.errors import lacking, refused

COMMAND = (sys.executable, "-m", "tests.support.micro")


def run(folder: Path, *more: str) -> int:
    return subprocess.run([*COMMAND, str(folder), *more], cwd=ROOT, capture_output=True, timeout=120).returncode


def weights(folder: Path) -> dict[str, Tensor]:
    return fermt.load(folder / state.WEIGHTS).state_dict()


def rows(folder: Path) -> list[dict[str, str]]:
    """What was measured, less how long it took."""
    with (folder / state.METRICS).open() as file:
        return [{key: cell for key, cell in row.items() if key != "pairs_per_second"} for row in csv.DictReader(file)]


def final(folder: Path) -> dict[str, object]:
    return checkpoints.read_pickled(state.states(folder)[-1])


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_ends_bit_for_bit_as_one_left_alone(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert run(alone) == 0
    assert run(killed, "8") == -signal.SIGKILL  # while it writes a state in the middle of an epoch
    assert [path.name for path in state.states(killed)] == ["state-000000004.pt"]
    with subprocess.Popen([*COMMAND, str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (killed / "state-000000012.pt").exists():  # whatever it is doing when that is there
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    with (killed / state.METRICS).open("a") as file:
        file.write("13,2,0.0")  # a line that was cut off
    assert run(killed) == 0
    assert same(final(killed), final(alone))
    assert same(weights(killed), weights(alone))
    assert rows(killed) == rows(alone)
    assert [row["step"] for row in rows(alone)] == ["3", "6", "9", "10", "12", "15", "18", "20"]


def test_a_signal_saves_the_state_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    settings = micro.config(validate_every=0)
    alone, stopped = (micro.trainer(settings, tmp_path / name) for name in ("alone", "stopped"))
    alone.run()
    stopped.train = Signalling(stopped.train, 26)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert state.states(stopped.folder)[-1].name == "state-000000007.pt"
    again = micro.trainer(settings, stopped.folder)
    assert again.progress.total == 7
    again.run()
    assert same(final(again.folder), final(alone.folder))


class Signalling:
    """A source that has this process asked to stop, once, when it makes pair `index`."""

    def __init__(self, source: PairSource, index: int) -> None:
        self.source, self.index = source, index

    def __len__(self) -> int:
        return len(self.source)

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        if index == self.index:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.source.pair(epoch, index)


def test_only_the_newest_states_are_kept_and_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    micro.trainer(micro.config(), tmp_path).run()
    assert [path.name for path in state.states(tmp_path)] == ["state-000000016.pt", "state-000000020.pt"]
    before = final(tmp_path)
    micro.trainer(micro.config(), tmp_path).run()
    assert same(final(tmp_path), before)
    longer = micro.trainer(micro.config(epochs=3), tmp_path)
    longer.run()
    assert longer.progress.total == 30
    state.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    micro.trainer(micro.config(epochs=1), tmp_path).run()
    with refused(ValueError, "lr", 0.001, 0.002):
        micro.trainer(micro.config(lr=2e-3), tmp_path)
    for path in state.states(tmp_path):
        path.write_bytes(b"damaged")
    with refused(ValueError, state.states(tmp_path)[-1]):
        micro.trainer(micro.config(epochs=1), tmp_path)
    torch.save({"model": {}}, state.states(tmp_path)[-1])
    with refused(ValueError, state.states(tmp_path)[-1], "'average', 'config'"):
        micro.trainer(micro.config(epochs=1), tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def one_weight_changed(path: Path) -> None:
    """Which PyTorch would load without a word."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        weights = archive.read(largest)
    content[content.index(weights) + len(weights) // 2] ^= 64
    path.write_bytes(content)


@pytest.mark.parametrize(("keep", "damage"), [(1, cut_short), (2, cut_short), (2, one_weight_changed)])
def test_a_damaged_state_is_set_aside_for_the_one_before(
    tmp_path: Path, keep: int, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    alone, cut = micro.trainer(micro.config(), tmp_path / "alone"), micro.trainer(micro.config(), tmp_path / "cut")
    for run in (alone, cut):
        run.run()
    older, newest = state.states(cut.folder)
    damage(newest)
    (cut.folder / "state-000000021.pt").write_bytes(b"")
    again = micro.trainer(micro.config(keep=keep), cut.folder)
    assert again.progress.total == int(older.stem.removeprefix("state-"))
    assert lacking(caplog.text, repr(str(older)), repr(str(newest))) == []
    again.run()
    assert same(final(again.folder)["model"], final(alone.folder)["model"])
    assert len(state.states(again.folder)) == keep
    assert sorted(path.name for path in again.folder.glob("*.damaged")) == [
        newest.with_suffix(".damaged").name,
        "state-000000021.damaged",
    ]
    state.clear(again.folder)
    assert not list(again.folder.iterdir())


def test_too_little_shared_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def full(*_: object, **__: object) -> Iterator[None]:
        raise RuntimeError(said[-1])
        yield

    monkeypatch.setattr(batches, "DataLoader", full)
    for text in (
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that ...\nmore",
        "unable to write to file </torch_12_3_0>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_12>: Resource temporarily unavailable (11)",
    ):
        said.append(text)
        with refused(RuntimeError, 2, "workers=0", "--shm-size=8g"):
            micro.trainer(micro.config(workers=2), tmp_path).run()
    said.append("something else")
    with pytest.raises(RuntimeError, match=r"^something else$"):
        micro.trainer(micro.config(workers=2), tmp_path).run()
