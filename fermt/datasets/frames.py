"""Image files of a sequence, found by the numbers in their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

SUFFIXES = (".jpg", ".jpeg", ".png")


class Frames(Sequence[Path]):
    """A sequence of files numbered from `first` without a gap, with any number of digits. Folders are no frames.

    The folder is listed on first use: for a path, or for the length if `count` is None. Files after `count` are not
    used.

    Raises, on first use:
        OSError: there is no such folder.
        ValueError: a frame is missing or there twice; the message has the sequence and the number of the frame.
    """

    def __init__(self, sequence: str, folder: Path, first: int = 1, count: int | None = None) -> None:
        self.sequence, self.folder, self.first = sequence, folder, first
        self._count = count

    def __len__(self) -> int:
        return len(self._paths) if self._count is None else self._count

    @overload
    def __getitem__(self, t: int) -> Path: ...
    @overload
    def __getitem__(self, t: slice) -> Sequence[Path]: ...
    def __getitem__(self, t: int | slice) -> Path | Sequence[Path]:
        return self._paths[t]

    @cached_property
    def _paths(self) -> list[Path]:
        files = self._numbered()
        end = max(files, default=self.first) + 1 if self._count is None else self.first + self._count
        missing = [number for number in range(self.first, end) if number not in files]
        if missing:
            more = f", nor of {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"sequence {self.sequence!r}: there is no image of frame {missing[0]}{more}; expected frames "
                f"{self.first} to {end - 1} in {str(self.folder)!r}"
            )
        return [self.folder / files[number] for number in range(self.first, end)]

    def _numbered(self) -> dict[int, str]:
        files: dict[int, str] = {}
        with os.scandir(self.folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name, (stem, suffix) = entry.name, os.path.splitext(entry.name)
            if stem.isdecimal() and suffix.lower() in SUFFIXES and not entry.is_dir():
                number = int(stem)
                if number in files:
                    raise ValueError(
                        f"sequence {self.sequence!r}: frame {number} is there twice in {str(self.folder)!r}, as "
                        f"{files[number]!r} and {name!r}"
                    )
                files[number] = name
        return files
