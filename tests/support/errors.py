"""Errors by their type and the values that their message must carry, in whatever words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Statuses of the compiled library (csrc/abi/fermt.h), which its errors carry.
NULL_POINTER, BAD_SIZE, BAD_STRIDE, BAD_SPAN, BAD_DTYPE, BAD_CACHE = 2, 3, 4, 5, 6, 15

Kinds = type[BaseException] | tuple[type[BaseException], ...]


def lacking(message: str, *values: object) -> list[str]:
    """Those of `values` that do not stand in a message by themselves: 1 does not stand in 10, -1 or 1.5."""
    texts = map(str, values)
    return [text for text in texts if not re.search(rf"(?<![\w-])(?<!\d\.){re.escape(text)}(?!\w|\.\d)", message)]


@contextmanager
def refused(error: Kinds, *values: object) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Asserts that the context ends with an error whose message carries all of `values`."""
    with pytest.raises(error) as raised:
        yield raised
    assert lacking(str(raised.value), *values) == [], str(raised.value)
