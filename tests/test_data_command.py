"""`fermt data preview`: pictures of pairs and augmentations, and what a newcomer gets wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fermt.cli import app
from fermt.data.preview import AUGMENTATIONS, BOX_COLOR, EXAMPLES
from fermt.data.sequences import Annotation
from fermt.datasets import GENERATED
from fermt.tracking.sheet import GAP

from .support import datasets

CELL = 256, 128 + 256  # height and width of a pair's picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return datasets.got10k(tmp_path / "got")


def preview(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "preview", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", "").split())


def cells(path: Path, columns: int, count: int) -> list[np.ndarray]:
    """The pictures on a sheet, RGB."""
    sheet = cv2.imread(str(path))[..., ::-1]
    rows = -(-count // columns)
    assert sheet.shape[:2] == (rows * (CELL[0] + GAP) + GAP, columns * (CELL[1] + GAP) + GAP)
    starts = [(GAP + i // columns * (CELL[0] + GAP), GAP + i % columns * (CELL[1] + GAP)) for i in range(count)]
    return [sheet[top : top + CELL[0], left : left + CELL[1]] for top, left in starts]


def test_a_sheet_of_pairs(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.png"
    code, printed = preview("--dataset", f"got10k={root}", "--out", out, "--pairs", 5, "--no-cache")
    assert code == 0, printed
    assert "got10k: 3 sequences" in printed
    assert f"5 pairs in {out}" in printed.replace("\n", "")
    for cell in cells(out, 2, 5):
        search = cell[:, 128:]
        assert (search == BOX_COLOR).all(axis=2).sum() > 50  # the box
        assert cell[128:, :128].min() < 100  # words
    assert sorted(tmp_path.iterdir()) == [root, out]


def test_the_same_sheet_again_and_another_of_another_epoch(root: Path, tmp_path: Path) -> None:
    pictures = []
    for name, epoch in (("a.png", 0), ("b.png", 0), ("c.png", 1)):
        code, printed = preview(
            "--dataset", f"got10k={root}", "--out", tmp_path / name, "--pairs", 2, "--epoch", epoch, "--no-cache"
        )  # fmt: skip
        assert code == 0, printed
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_several_sets(root: Path, tmp_path: Path) -> None:
    coco = datasets.coco(tmp_path / "coco")
    sets = "--dataset", f"got10k={root}", "--dataset", f"coco={coco}", "--cache", tmp_path / "cache"
    code, printed = preview(*sets, "--weight", 1, "--weight", 3, "--out", tmp_path / "a.png")
    assert code == 0, printed
    assert "got10k: 3 sequences coco: 3 sequences 16 pairs" in printed
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_one_row_an_augmentation(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    code, printed = preview("--dataset", f"got10k={root}", "--out", out, "--augmentations", "--no-cache")
    assert code == 0, printed
    found = cells(out, 1 + EXAMPLES, (1 + EXAMPLES) * len(AUGMENTATIONS))
    rows = {name: found[i * (1 + EXAMPLES) : (i + 1) * (1 + EXAMPLES)] for i, name in enumerate(AUGMENTATIONS)}
    for name, (before, *after) in rows.items():
        assert np.array_equal(before[:, 128:], found[0][:, 128:]), name
        for picture in after:
            assert not np.array_equal(picture[:, 128:], before[:, 128:]), name
    for picture in rows["gray"][1:]:
        template = picture[:128, :128].astype(int)
        assert np.ptp(template, axis=2).max() == 0


def test_what_is_replaced_is_told(root: Path, tmp_path: Path) -> None:
    for path in root.glob("train/GOT-10k_Train_000002/*.jpg"):
        datasets.cut(path)
    code, printed = preview("--dataset", f"got10k={root}", "--out", tmp_path / "a.png", "--no-cache")
    assert code == 0, printed
    assert "unreadable images" in printed


def test_the_synthetic_set_needs_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Synthetic:
        name, is_video = "synthetic", True

        def __len__(self) -> int:
            return 2

        def annotation(self, i: int) -> Annotation:
            return Annotation(np.tile((30.0, 20.0, 20.0, 20.0), (9, 1)), np.ones(9, bool))

        def image(self, i: int, t: int) -> np.ndarray:
            return np.full((80, 90, 3), 20 * t, np.uint8)

    monkeypatch.setitem(GENERATED, "synthetic", Synthetic)
    code, printed = preview("--dataset", "synthetic", "--out", tmp_path / "a.png", "--pairs", 1)
    assert code == 0, printed
    assert "synthetic: 2 sequences" in printed


def test_what_a_newcomer_gets_wrong(root: Path, tmp_path: Path) -> None:
    got, out = ("--dataset", f"got10k={root}"), ("--out", tmp_path / "a.png", "--no-cache")
    (tmp_path / "some.txt").write_text("7")
    for arguments, message in (
        ((), "Missing option '--dataset'"),
        (("--dataset", "got", *out), "dataset must be one of got10k, lasot"),
        (("--dataset", "got10k=", *out), "--dataset: expected NAME=FOLDER, or NAME alone"),
        (("--dataset", "got10k", *out), "no folder is given for got10k: expected --dataset got10k=FOLDER"),
        (("--dataset", f"synthetic={root}", *out), "synthetic has no root; got"),
        (("--dataset", f"got10k={tmp_path}", *out), "Expected layout of the root"),
        ((*got, "--out", tmp_path / "a.jpg"), "expected a name that ends in .png"),
        ((*got, *got, "--weight", 1, *out), "expected one --weight for each of 2 --dataset; got 1"),
        ((*got, *got, "--split", "val", *out), "expected one --split for each of 2 --dataset"),
        ((*got, *got, "--only", "x.txt", *out), "--only and --exclude need a single --dataset; got 2"),
        ((*got, "--exclude", tmp_path / "some.txt", *out), "expected indices below 3, got 7"),
        ((*got, "--only", tmp_path / "none.txt", *out), "No such file"),
        ((*got, "--weight", 0, *out), "a positive weight for each of 1 sets"),
        ((*got, "--config", "none", *out), "unknown configuration 'none'"),
    ):
        code, printed = preview(*arguments)
        assert code in (1, 2), (arguments, printed)
        assert message in printed, (message, printed)
    assert not list(tmp_path.glob("*a.*"))
