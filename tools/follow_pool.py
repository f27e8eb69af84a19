"""Makes video/tracks.json of a pool of free images: follows drawn boxes through its clips, forward and backward.

A box is followed by NanoTrack (OpenCV's TrackerNano) to the end of its clip, and from there back; the frames in which
both runs agree are kept. Where they part for good, the track ends.

    python -m tools.follow_pool POOL --nano FOLDER_WITH_THE_TWO_ONNX_FILES
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fermt.evaluation.metrics import got10k_overlap
from fermt.images import read_image
from fermt_kernels.files import atomic_write

MIN_AGREEMENT = 0.6  # least IoU of the two runs in a frame that is kept
MIN_TRACK_FRAMES = 12  # frames of a track
MIN_KEPT_SHARE = 0.7  # of a track's frames that must be kept


def tracker(folder: Path) -> Any:
    """OpenCV's NanoTrack, whose types OpenCV's own declarations leave out."""
    opencv: Any = cv2
    params = opencv.TrackerNano_Params()
    params.backbone = str(folder / "nanotrack_backbone_sim.onnx")
    params.neckhead = str(folder / "nanotrack_head_sim.onnx")
    return opencv.TrackerNano_create(params)


def follow(frames: list[np.ndarray], box: np.ndarray, nano: Path) -> np.ndarray:
    """Boxes (N, 4) xywh of an object that is at `box` in the first of the frames."""
    one = tracker(nano)
    one.init(frames[0], tuple(round(value) for value in box))
    found = [np.asarray(box, np.float64)]
    for frame in frames[1:]:
        ok, place = one.update(frame)
        found.append(np.array(place, np.float64) if ok else found[-1])
    return np.stack(found)


def kept(frames: list[np.ndarray], box: np.ndarray, nano: Path) -> np.ndarray | None:
    """The boxes on which both directions agree, NaN where they do not; None if that is too little."""
    forward = follow(frames, box, nano)
    count = len(frames)
    while count >= MIN_TRACK_FRAMES:
        back = follow(frames[:count][::-1], forward[count - 1], nano)[::-1]
        agree = got10k_overlap(forward[:count], back) >= MIN_AGREEMENT
        if agree[0] and agree.mean() >= MIN_KEPT_SHARE:
            boxes = 0.5 * (forward[:count] + back)
            boxes[0] = box
            boxes[~agree] = np.nan
            return boxes
        count = count * 2 // 3
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="the pool; its video/tracks.json is written")
    parser.add_argument("--nano", type=Path, required=True, help="folder of nanotrack_{backbone,head}_sim.onnx")
    parser.add_argument("--seeds", type=Path, default=Path(__file__).with_name("pool_seeds.json"), help="drawn boxes")
    options = parser.parse_args()
    seeds, tracks = json.loads(options.seeds.read_text()), []
    for i, seed in enumerate(seeds):
        files = sorted((options.pool / "video" / seed["clip"]).glob("[!.]*.webp"))
        if len(files) <= seed["frame"]:
            raise SystemExit(f"{seed['clip']}: expected more than {seed['frame']} frames, found {len(files)}")
        frames = [read_image(file)[..., ::-1].copy() for file in files]  # BGR
        for name, part, step in (("on", frames[seed["frame"] :], 1), ("back", frames[: seed["frame"] + 1][::-1], -1)):
            box = np.array(seed["box"], np.float64)
            boxes = kept(part, box, options.nano) if len(part) >= MIN_TRACK_FRAMES else None
            if boxes is not None:
                first = seed["frame"] if step > 0 else seed["frame"] - len(boxes) + 1
                tracks.append({"clip": seed["clip"], "first": first, "boxes": boxes[::step].round(2).tolist()})
            print(
                f"{i + 1}/{len(seeds)} {seed['clip']} {name}: {0 if boxes is None else len(boxes)} frames", flush=True
            )
    target = options.pool / "video" / "tracks.json"
    atomic_write(target, json.dumps(tracks))
    print(f"{len(tracks)} tracks, {sum(len(track['boxes']) for track in tracks)} frames in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
