"""Requests to stop: raised, put off, repeated, ignored, and outside the main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fermt import signals
from fermt.signals import STOPPING, Stopped, deferred, exit_status, raising

from .conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the signals are those of POSIX")


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_is_raised_and_the_handlers_come_back(number: signal.Signals) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # a shell's background job ignores SIGINT
    try:
        before = [signal.getsignal(each) for each in STOPPING]
        with pytest.raises(Stopped) as raised, raising():
            ask(number)
            signal.pause()
        assert (raised.value.number, exit_status(raised.value)) == (number, 128 + number)
        assert [signal.getsignal(each) for each in STOPPING] == before
    finally:
        signal.signal(number, inherited)
    assert exit_status(KeyboardInterrupt()) == 130


def test_a_request_is_put_off_and_a_second_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with raising(), deferred() as request:
        request.check()
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)  # at once, as `timeout` sends it to a process and to its group
        assert request.number == signal.SIGTERM
        with pytest.raises(Stopped):
            request.check()
        monkeypatch.setattr(signals, "REPEAT_INTERVAL", -1.0)
        with pytest.raises(Stopped) as raised:
            ask(signal.SIGHUP)
        assert raised.value.number == signal.SIGHUP


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising(), deferred() as request:
            ask(signal.SIGHUP)
            assert request.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_set_no_handlers() -> None:
    def inside() -> object:
        with raising(), deferred() as request, signals.inherited_as_ignored():
            return request.number, signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == (None, signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_every_command_ends_with_the_signals_status(number: signal.Signals) -> None:
    """Here one without files, and in the middle of its work."""
    code = f"""
import os
from fermt import checkpoints
from fermt.cli import app
checkpoints.convert = lambda *_: os.kill(os.getpid(), {int(number)})
app(["convert", "a.pth.tar", "a.safetensors"])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, "Interrupted" in ended.stderr) == (128 + number, True), ended.stderr
    assert "Traceback" not in ended.stderr
