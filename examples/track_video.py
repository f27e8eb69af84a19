"""Follow two targets through a clip: python examples/track_video.py [weights.safetensors]

Prints a line a frame and writes tracked.mp4. For one target, fermt.Tracker; without code, `fermt track`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

import fermt

CLIP = Path(__file__).with_name("basketball.mp4")
TARGETS = {"player": (372, 108, 125, 240), "basket": (125, 20, 130, 75)}  # x, y, w, h in the first frame
FRAMES = 30
OWN = "free-images"  # weights that come with the package


def main(weights: str = OWN, frames: int = FRAMES, out: str = "tracked.mp4") -> int:
    """Tracks `frames` frames; returns how many there were."""
    if weights == OWN:
        print("Weights: free-images, which come with the package and were trained on free images only.")
    model = fermt.load(weights)
    tracker = fermt.MultiTracker(model, bgr=True)  # OpenCV reads BGR; score thresholds and more: docs/tracking.md
    video, writer, done = cv2.VideoCapture(str(CLIP)), None, 0
    while done < frames:
        read, image = video.read()
        if not read:
            break
        if done == 0:
            for name, box in TARGETS.items():
                tracker.add(image, box, name)
        else:
            for name, (box, score, _) in tracker.update(image).items():
                x, y, w, h = map(round, box)
                cv2.rectangle(image, (x, y), (x + w, y + h), (80, 255, 80), 2)
                print(f"frame {done}, {name}: x {x}, y {y}, w {w}, h {h}, score {score:.2f}")
        if writer is None:
            writer = cv2.VideoWriter(out, cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (image.shape[1], image.shape[0]))
        writer.write(image)
        done += 1
    if writer is not None:
        writer.release()
    return done


if __name__ == "__main__":
    main(*sys.argv[1:2])
