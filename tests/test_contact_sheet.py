"""Contact sheets of tracked frames: which frames they keep, and where these are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fermt.tracking.sheet import GAP, MOST, WIDTH, ContactSheet


def test_a_contact_sheet_has_every_nth_frame(tmp_path: Path) -> None:
    sheet = ContactSheet(tmp_path / "sheet.png", 5)
    for i in range(21):
        if sheet.wants():
            sheet.add(np.full((90, 160, 3), 10 * i, np.uint8))
        else:
            sheet.skip()
    sheet.save()
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    height = round(90 * WIDTH / 160)
    columns = (picture.shape[1] - GAP) // (WIDTH + GAP)
    assert picture.shape[0] == -(-5 // columns) * (height + GAP) + GAP
    for n in range(5):
        row, column = divmod(n, columns)
        middle = picture[GAP + row * (height + GAP) + height // 2, GAP + column * (WIDTH + GAP) + WIDTH // 2]
        assert tuple(middle) == (50 * n,) * 3
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.png"]


def test_a_long_contact_sheet_thins_itself_out(tmp_path: Path) -> None:
    sheet, kept = ContactSheet(tmp_path / "sheet.png", 1), []
    for i in range(MOST + 30):
        if sheet.wants():
            kept.append(i)
        sheet.add(np.zeros((4, 4, 3), np.uint8))
    assert sheet.every == 2
    assert kept == [*range(MOST + 1), *range(MOST + 2, MOST + 30, 2)]
