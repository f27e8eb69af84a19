"""Wording that several messages share."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(items: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """Joins the first `most` of `items`, and says how many more there are."""
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more
