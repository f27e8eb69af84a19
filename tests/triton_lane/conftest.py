"""What the frame's tests share."""

from __future__ import annotations

import pytest

from fermt_kernels.triton import dual_attention_unit

from ..support.device_frames import LARGE, take


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays by the program: large tiles, but for the tests that take others."""
    monkeypatch.setattr(dual_attention_unit, "TOTAL_COLUMNS", 256)
    monkeypatch.setattr(dual_attention_unit, "TOTAL_ROWS", 16)
    take(monkeypatch, LARGE)
