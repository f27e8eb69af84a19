"""The Triton backend's choices that need no GPU: which GPUs it takes, and the precision of float32 products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fermt_kernels import triton as backend
from fermt_kernels.triton import launch


@pytest.fixture
def settings() -> Iterator[None]:
    """Restores PyTorch's settings of float32 products."""
    _reset()
    yield
    _reset()


def _reset() -> None:
    torch.set_float32_matmul_precision("highest")
    for owner in (torch.backends, torch.backends.cuda.matmul):
        owner.fp32_precision = "none"


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("legacy", "expected"), [("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")])
def test_the_older_setting_decides(legacy: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "INTERPRETED", False)
    torch.set_float32_matmul_precision(legacy)
    assert launch.dot_precision(torch.float32) == expected
    assert launch.dot_precision(torch.bfloat16) == "ieee"


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("owner", "name"), [(torch.backends, "all"), (torch.backends.cuda.matmul, "products")])
def test_the_newer_setting_decides_and_never_raises(owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "INTERPRETED", False)
    for value in ("tf32", "ieee"):
        owner.fp32_precision = value
        assert launch.dot_precision(torch.float32) == value


def test_old_gpus_are_refused_with_their_name_and_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "INTERPRETED", False)
    monkeypatch.setattr(backend, "_is_installed", lambda: True)
    monkeypatch.setattr(backend, "_import_failure", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for capability, usable in (((7, 5), False), ((8, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        reason = backend.unavailable_reason()
        assert reason is None if usable else "Tesla T4 has compute capability 7.5" in reason
