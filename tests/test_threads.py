"""One object in several threads, and trackers in forked children of a process that has tracked."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt.adapters import opencv
from fermt_kernels.locks import ObjectLock
from fermt_kernels.modes import evaluating

from .support.packed import small_model

pytestmark = pytest.mark.usefixtures("loaded")
BOX = (30, 20, 25, 22)


@pytest.fixture(scope="module")
def model() -> fermt.FERMT:
    return small_model("center")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(90, 120, 3), dtype=np.uint8)


def at_once(*calls: Callable[[], object], seconds: float) -> None:
    """Calls each function again and again in a thread of its own; the first error of any is raised."""
    end, errors = time.monotonic() + seconds, []

    def repeat(call: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end and not errors:
                call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seconds", [0.5, pytest.param(5.0, marks=pytest.mark.slow)])
def test_a_workspace_in_many_threads_gives_the_maps_of_one(seconds: float) -> None:
    """The calls differ in batch size, so that the workspace's parts would lie in each other's."""
    packed = fk.frame.pack(small_model("center"))
    workspace = fk.frame.Workspace()

    def caller(batch: int) -> Callable[[], object]:
        templates = torch.randint(256, (batch, 16, 16, 3), dtype=torch.uint8)
        searches = torch.randint(256, (batch, 32, 32, 3), dtype=torch.uint8)
        caches = fk.frame.encode_template(packed, templates)
        expected = fk.frame.track_frame(packed, caches, searches)["score_map"]

        def call() -> None:
            encoded = fk.frame.encode_template(packed, templates, workspace=workspace)
            found = fk.frame.track_frame(packed, encoded, searches, workspace=workspace)["score_map"]
            assert torch.equal(found, expected)

        return call

    at_once(*map(caller, (1, 2, 3, 8)), seconds=seconds)


@pytest.mark.parametrize("seconds", [0.5, pytest.param(5.0, marks=pytest.mark.slow)])
def test_targets_come_and_go_while_others_are_tracked(model: fermt.FERMT, image: np.ndarray, seconds: float) -> None:
    tracker = fermt.MultiTracker(model)
    tracker.add(image, BOX, "stays")

    def come_and_go() -> None:
        name = tracker.add(image, BOX)
        tracker.reinit(name, image, (40, 30, 20, 20))
        tracker.drop(name)

    def update() -> None:
        assert "stays" in tracker.update(image)

    at_once(come_and_go, come_and_go, update, lambda: tracker.names, seconds=seconds)
    assert tracker.names == ("stays",)


@pytest.mark.parametrize("kind", [fermt.Tracker, opencv.Tracker])
def test_a_tracker_in_two_threads(model: fermt.FERMT, image: np.ndarray, kind: type) -> None:
    tracker = kind(model)
    tracker.init(image, BOX)
    at_once(lambda: tracker.init(image, BOX), lambda: tracker.update(image), seconds=0.3)


def test_a_copy_has_a_lock_of_its_own(model: fermt.FERMT, image: np.ndarray) -> None:
    tracker = fermt.Tracker(model)
    tracker.init(image, BOX)
    copied = copy.deepcopy(tracker)
    assert copied._lock is not tracker._lock
    assert copied.update(image) == tracker.update(image)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def status_of_child(run: Callable[[], object], seconds: int = 30) -> int:
    """The status of a forked child that runs a function; -SIGALRM if it hangs."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@forks
@pytest.mark.usefixtures("two_threads")
def test_a_forked_child_tracks(image: np.ndarray) -> None:
    """On torch's threads in the parent, which the child does not have."""
    tracker = fermt.MultiTracker(fermt.build_model("fermt"))
    for i in range(3):
        tracker.add(image, BOX, i)
    expected = tracker.update(image)
    first = {name: track.box for name, track in expected.items()}

    def child() -> None:
        for i in range(3):
            tracker.drop(i)
            tracker.add(image, BOX, i)
        assert {name: track.box for name, track in tracker.update(image).items()} == first
        q = torch.randn(2, 4, 320, 64)
        fk.attention(q, q, q, 64, backend="cpp")

    assert status_of_child(child) == 0


@needs_fork
@forks
def test_a_lock_that_another_thread_held_is_free_in_the_child() -> None:
    lock, holds, ends = ObjectLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            ends.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(60)

    def child() -> None:
        with lock, lock:
            pass

    assert status_of_child(child, 10) == 0
    ends.set()
    thread.join()
    with lock:  # held by the thread that forks
        assert status_of_child(child, 10) == 0


def test_a_model_is_in_evaluation_mode_until_the_last_of_several_uses_ends(model: fermt.FERMT) -> None:
    """As two trackers in two threads use one model that is being trained."""
    trained = copy.deepcopy(model).train()
    frozen = trained.backbone.patch_embed.eval()
    first, second = evaluating(trained), evaluating(trained)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in trained.modules())
    second.__exit__(None, None, None)
    assert all(module.training for module in trained.modules() if module not in set(frozen.modules()))
    assert not any(module.training for module in frozen.modules())
