"""Whatever reads files, and the compiled kernels, on drawn inputs; `make fuzz` draws many more."""

from __future__ import annotations

import pytest

from fermt_kernels.backends import BACKENDS

from .support import fuzzing


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_drawn_inputs(name: str) -> None:
    if name in ("attention", "linear") and (reason := BACKENDS["cpp"].unavailable_reason()):
        pytest.skip(f"backend cpp is not usable: {reason}")
    assert fuzzing.fuzz(name, 30, 0) >= 10
