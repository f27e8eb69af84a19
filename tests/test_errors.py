"""The tests' own way of asserting errors: it must notice a message that loses a value."""

from __future__ import annotations

import pytest

from .support.errors import lacking, refused


@pytest.mark.parametrize(
    ("message", "value", "there"),
    [
        ("got 1", 1, True),
        ("got 1; expected 2", 1, True),
        ("(1, 2)", 1, True),
        ("got 10", 1, False),
        ("got -1", 1, False),
        ("got -1", -1, True),
        ("got 1.5", 1, False),
        ("got 0.1", 1, False),
        ("got 1.", 1, True),
        ("shape (1, 2)", (1, 2), True),
        ("shape (1, 2, 3)", (1, 2), False),
        ("search_size", "size", False),
        ("'/tmp/a.txt', line 2", "a.txt'", True),
    ],
)
def test_a_value_stands_by_itself(message: str, value: object, there: bool) -> None:
    assert (lacking(message, value) == []) is there


def test_another_error_and_a_lost_value_are_noticed() -> None:
    with pytest.raises(TypeError), refused(ValueError):
        raise TypeError("got 7")
    with pytest.raises(AssertionError), refused(ValueError, "patience", 7):
        raise ValueError("patience is out of range")
