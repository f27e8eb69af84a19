"""Wording that several messages share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def first_few(items: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """Joins the first `most` of `items`, and says how many more there are."""
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Describes those of the settings `names` that have another value than before."""
    return [
        f"{name} was {before.get(name)!r}, and is to be {now.get(name)!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]
