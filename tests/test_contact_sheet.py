"""Contact sheets of tracked frames: which frames they keep, and where these are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fermt.tracking.sheet import FRAME_WIDTH, GAP, MAX_FRAMES, ContactSheet


def test_a_contact_sheet_has_every_nth_frame(tmp_path: Path) -> None:
    sheet = ContactSheet(tmp_path / "sheet.png", 5)
    for i in range(21):
        if sheet.wants():
            sheet.add(np.full((90, 160, 3), 10 * i, np.uint8))
        else:
            sheet.skip()
    sheet.save()
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    height = round(90 * FRAME_WIDTH / 160)
    columns = (picture.shape[1] - GAP) // (FRAME_WIDTH + GAP)
    assert picture.shape[0] == -(-5 // columns) * (height + GAP) + GAP
    for n in range(5):
        row, column = divmod(n, columns)
        middle = picture[
            GAP + row * (height + GAP) + height // 2, GAP + column * (FRAME_WIDTH + GAP) + FRAME_WIDTH // 2
        ]
        assert tuple(middle) == (50 * n,) * 3
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.png"]


def test_a_long_contact_sheet_thins_itself_out(tmp_path: Path) -> None:
    sheet, kept = ContactSheet(tmp_path / "sheet.png", 1), []
    for i in range(MAX_FRAMES + 30):
        if sheet.wants():
            kept.append(i)
        sheet.add(np.zeros((4, 4, 3), np.uint8))
    assert sheet.every == 2
    assert kept == [*range(MAX_FRAMES + 1), *range(MAX_FRAMES + 2, MAX_FRAMES + 30, 2)]
