"""Detection of video files that are cut off, by the sizes that their containers state, and counting of frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import cv2

ISO_TYPES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp")
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska, WebM


def is_cut_off(path: Path) -> bool:
    """Whether an MP4, MOV, Matroska, WebM or AVI file states a size beyond its end; False for other formats.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        for matches, end in _FORMATS:
            if matches(head):
                return end(file) > size
    return False


def counts_exactly(path: Path) -> bool:
    """Whether the container has a table of all its frames: MP4 and MOV without fragments."""
    with path.open("rb") as file:
        if not _is_iso(file.read(12)):
            return False
        return all(kind != b"moof" for kind, _ in _iso_boxes(file))


def count_frames(path: Path, *, coded: bool = False) -> int:
    """Counts the frames of a video that can be decoded, or its coded frames; 0 if OpenCV cannot read those."""
    capture, count = cv2.VideoCapture(str(path)), 0
    if coded and not capture.set(cv2.CAP_PROP_FORMAT, -1):
        return 0
    while capture.grab():
        count += 1
    capture.release()
    return count


def _is_iso(head: bytes) -> bool:
    return head[4:8] in ISO_TYPES


def _iso_boxes(file: BinaryIO) -> list[tuple[bytes, int]]:
    """Types of the outermost boxes, and where each ends."""
    size, at, found = os.fstat(file.fileno()).st_size, 0, []
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        at = size if length == 0 else at + max(length, 8)
        found.append((head[4:8], at))
    return found


def _iso_end(file: BinaryIO) -> int:
    return max(end for _, end in _iso_boxes(file))


def _matroska_end(file: BinaryIO) -> int:
    file.seek(len(EBML))
    file.seek(_vint(file) or 0, os.SEEK_CUR)
    if file.read(len(SEGMENT)) != SEGMENT or (length := _vint(file)) is None:
        return 0
    return file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """Reads a length of one to eight bytes; None if there is none, or it says that the length is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    count = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (8 - count)) - 1)]) + file.read(count - 1), "big")
    return None if value == (1 << (7 * count)) - 1 else value


def _riff_end(file: BinaryIO) -> int:
    size, at = os.fstat(file.fileno()).st_size, 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            break
        at += 8 + int.from_bytes(head[4:], "little")
    return at


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], int]], ...] = (
    (_is_iso, _iso_end),
    (lambda head: head.startswith(EBML), _matroska_end),
    (lambda head: head.startswith(b"RIFF"), _riff_end),
)
