"""Sequences with a true box in some or all frames: folders of images, and videos with a file of labels beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fermt.boxes import Box
from fermt.data.sequences import valid_boxes
from fermt.evaluation import metrics
from fermt.evaluation.protocols import OVERLAP_THRESHOLDS
from fermt.textfiles import read_lines, read_numbers
from fermt.tracking.sources import Source, open_source

DENSE_LABELS = "groundtruth.txt"  # a box for each frame
SPARSE_LABELS = "groundtruth.csv"  # boxes with the numbers of their frames
HEADER = "frame,x,y,w,h"  # first line of a sparse file
VIDEO_LABELS_SUFFIX = f"_{SPARSE_LABELS}"  # of the labels of a video, after its stem
LAYOUT = (
    f"expected a folder of images with {DENSE_LABELS} (lines of x,y,w,h) or {SPARSE_LABELS} (lines of {HEADER}), a "
    f"video NAME.mp4 with NAME{VIDEO_LABELS_SUFFIX} in the same folder, or a folder of these"
)


class LabeledSequence(NamedTuple):
    """Frames and their true boxes."""

    name: str
    source: Source
    truth: np.ndarray  # (N, 4) float64, xywh in pixels; NaN where the target is absent, or nobody drew a box
    whole: bool  # whether there is a row for each frame

    def images(self) -> Iterator[np.ndarray]:
        """The N frames, (H, W, 3) uint8 RGB; ValueError if there are fewer, or more and `whole`."""
        read = 0
        for image in self.source:
            read += 1
            if read <= len(self.truth):
                yield image
            else:
                break
        if read < len(self.truth) or (self.whole and read > len(self.truth)):
            count = f"{read} frames" if read < len(self.truth) else f"more than {len(self.truth)} frames"
            raise ValueError(f"{self.name}: its labels are of {len(self.truth)} frames, and it has {count}")

    def first(self, frames: int) -> LabeledSequence:
        """The sequence cut to so many frames, if it has more; 0 leaves it as it is. ValueError if no label is left."""
        if not 0 < frames < len(self.truth):
            return self
        if not valid_boxes(self.truth[1:frames]).any():
            raise ValueError(f"{self.name}: none of the first {frames} frames has a label after the first; take more")
        return self._replace(truth=self.truth[:frames], whole=False)


class Scores(NamedTuple):
    """What a tracker reached on a sequence, over the labeled frames after the first; each from 0 to 1."""

    ao: float  # average overlap, the mean IoU
    sr: float  # success rate: frames whose IoU is above 0.5
    auc: float  # area under the success curve: the mean of the success rates at IoU 0, 0.05 ... 1
    frames: int  # counted

    @staticmethod
    def mean(each: Sequence[Scores]) -> Scores:
        """Over sequences, each counting the same; the frames are summed."""
        ao, sr, auc = np.mean([scores[:3] for scores in each], axis=0).tolist()
        return Scores(ao, sr, auc, sum(scores.frames for scores in each))


def score(boxes: np.ndarray, truth: np.ndarray) -> Scores:
    """Scores of (N, 4) boxes; the first frame, and those without a true box, are left out."""
    counted = valid_boxes(truth)
    counted[0] = False
    overlaps = metrics.got10k_overlap(boxes[counted], truth[counted])
    success = metrics.count_above(overlaps, OVERLAP_THRESHOLDS) / len(overlaps)
    sr, auc = (
        float(success @ weights(OVERLAP_THRESHOLDS)) for weights in (partial(metrics.point_at, 0.5), metrics.mean)
    )
    return Scores(float(overlaps.mean()), sr, auc, len(overlaps))


def find_sequences(path: Path) -> list[LabeledSequence]:
    """The sequences at a path: one of them, or a folder of them, in the order of their names.

    Raises:
        FileNotFoundError: there is nothing of that name, or no sequence in it.
        ValueError: a file of labels is not what is expected.
    """
    if not path.exists():
        raise FileNotFoundError(f"no sequences at {str(path)!r}: {LAYOUT}")
    if path.is_file():
        return [_video(path)]
    if _labels_in(path):
        return [_folder(path)]
    folders = [_folder(each) for each in path.iterdir() if each.is_dir() and _labels_in(each)]
    videos = [_video(_video_of(labels)) for labels in path.glob(f"[!.]*{VIDEO_LABELS_SUFFIX}")]
    if not folders and not videos:
        raise FileNotFoundError(f"no sequences in {str(path)!r}: {LAYOUT}")
    return sorted(folders + videos, key=lambda sequence: sequence.name)


def _labels_in(folder: Path) -> Path | None:
    return next((folder / name for name in (DENSE_LABELS, SPARSE_LABELS) if (folder / name).is_file()), None)


def _folder(folder: Path) -> LabeledSequence:
    labels = _labels_in(folder)
    assert labels is not None
    return _sequence(folder.resolve().name, open_source(folder), labels)


def _video(video: Path) -> LabeledSequence:
    labels = video.with_name(video.stem + VIDEO_LABELS_SUFFIX)
    if not labels.is_file():
        raise FileNotFoundError(f"no labels at {str(labels)!r}, for the video {str(video)!r}")
    return _sequence(video.stem, open_source(video), labels)


def _video_of(labels: Path) -> Path:
    stem = labels.name.removesuffix(VIDEO_LABELS_SUFFIX)
    found = sorted(file for file in labels.parent.glob(f"{stem}.*") if file.stem == stem and file.name[0] != ".")
    if len(found) != 1:
        raise ValueError(f"{str(labels)!r} needs one video {stem!r} beside it, found {[file.name for file in found]}")
    return found[0]


def _sequence(name: str, source: Source, labels: Path) -> LabeledSequence:
    whole = labels.name == DENSE_LABELS
    return LabeledSequence(name, source, read_dense(labels) if whole else read_sparse(labels), whole)


def read_dense(file: Path) -> np.ndarray:
    """(N, 4) boxes of a file with `x,y,w,h` of each frame, a line each.

    Raises:
        ValueError: a line is something else, the first box has no area, or there is no other to compare with.
    """
    rows = read_numbers(file, (4,), f"numbers {HEADER.partition(',')[2]}")
    return _checked(file, np.array(rows, np.float64).reshape(-1, 4))


def read_sparse(file: Path) -> np.ndarray:
    """(N, 4) boxes of a file with `frame,x,y,w,h` of some frames, frames from 0; NaN in between, N up to the last.

    Raises:
        ValueError: as `read_dense`, and frames that do not begin with 0 and go up.
    """
    first = next(iter(read_lines(file)), "")
    if first != HEADER:
        raise ValueError(f"{str(file)!r}: expected {HEADER!r} in its first line, got {first!r}")
    rows = np.array(read_numbers(file, (5,), f"numbers {HEADER}", skip=1), np.float64).reshape(-1, 5)
    frames = rows[:, 0]
    if not len(rows) or frames[0] != 0 or (frames % 1 != 0).any() or (np.diff(frames) <= 0).any():
        raise ValueError(f"{str(file)!r}: expected whole numbers of frames that begin with 0 and go up, got {frames}")
    boxes = np.full((int(frames[-1]) + 1, 4), np.nan)
    boxes[frames.astype(int)] = rows[:, 1:]
    return _checked(file, boxes)


def _checked(file: Path, boxes: np.ndarray) -> np.ndarray:
    valid = valid_boxes(boxes)
    if not valid[:1].any():
        first = boxes[0].tolist() if len(boxes) else "nothing"
        raise ValueError(f"{str(file)!r}: the first box is where tracking starts, and must have an area; got {first}")
    if not valid[1:].any():
        raise ValueError(f"{str(file)!r}: no box after the first, so there is nothing to compare with")
    return boxes


def labeled(sequence: LabeledSequence) -> Iterator[tuple[np.ndarray, Box]]:
    """(image, box) of each frame that has a box."""
    for image, box, valid in zip(sequence.images(), sequence.truth, valid_boxes(sequence.truth), strict=True):
        if valid:
            x, y, w, h = box.tolist()
            yield image, (x, y, w, h)
