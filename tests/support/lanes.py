"""The lanes of the tests: `make test` leaves out what is marked slow, and `make test-all` runs it, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: object) -> Any:
    """Parameters of a test that are for the slow lane alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def first_fast(values: Iterable[object]) -> list[Any]:
    """Values of one parameter: the first for every lane, the others for the slow lane alone."""
    first, *others = values
    return [first, *map(slow, others)]
