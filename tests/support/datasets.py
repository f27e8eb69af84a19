"""Miniature data sets in the layouts of the real ones. Frame t of sequence i is of one color, which says i and t."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 90, 120
SEQUENCES, FRAMES = 3, 5


def color(i: int, t: int) -> tuple[int, int, int]:
    """RGB."""
    return 30 + 40 * i, 40 + 10 * t, 128


def boxes(i: int, frames: int = FRAMES) -> np.ndarray:
    """(frames, 4), whole numbers, so that every format writes them exactly."""
    return np.array([(10 + 5 * i + t, 20 + 2 * t, 40 - t, 30 + i) for t in range(frames)], np.float64)


def write_image(path: Path, rgb: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), rgb[::-1], np.uint8))


def write_rows(path: Path, rows: Sequence[Sequence[float]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{value:g}" for value in row) + "\n" for row in rows))


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def got10k(root: Path, sequences: int = SEQUENCES, frames: int = FRAMES, split: str = "train") -> Path:
    """The target is absent in frame 1 and covered in frame 2 of every sequence. "test" has first boxes."""
    names = [f"GOT-10k_{split.capitalize()}_{i + 1:06d}" for i in range(sequences)]
    for i, name in enumerate(names):
        folder = root / split / name
        for t in range(frames):
            write_image(folder / f"{t + 1:08d}.jpg", color(i, t))
        if split == "test":
            write_rows(folder / "groundtruth.txt", boxes(i, 1).tolist())
            continue
        write_rows(folder / "groundtruth.txt", boxes(i, frames).tolist())
        write_rows(folder / "absence.label", [[float(t == 1)] for t in range(frames)])
        write_rows(folder / "cover.label", [[0.0 if t == 2 else 8.0 - t % 2] for t in range(frames)])
        write_rows(folder / "cut_by_image.label", [[0.0]] * frames)
        (folder / "meta_info.ini").write_text("[METAINFO]\nanno_fps: 10Hz\nresolution: (120, 90)\n")
    (root / split / "list.txt").write_text("\n".join(names) + "\n")
    return root


def lasot(root: Path, names: Sequence[str] = ("airplane-1", "airplane-2", "hand-fan-7")) -> Path:
    """The target is occluded in frame 1 and out of view in frame 2; names have hyphens in their category, too."""
    for i, name in enumerate(names):
        folder = root / name.rpartition("-")[0] / name
        write_rows(folder / "groundtruth.txt", boxes(i).tolist())
        write_rows(folder / "full_occlusion.txt", [[float(t == 1) for t in range(FRAMES)]])
        write_rows(folder / "out_of_view.txt", [[float(t == 2) for t in range(FRAMES)]])
        for t in range(FRAMES):
            write_image(folder / "img" / f"{t + 1:08d}.jpg", color(i, t))
    (root / "training_set.txt").write_text("\n".join(names))
    return root


def trackingnet(root: Path) -> Path:
    """Frames 1 and 2 have a box without area."""
    for i, name in enumerate(("TRAIN_0/abc_0", "TRAIN_2/-x_0", "TRAIN_10/xyz_1")):
        part, _, sequence = name.partition("/")
        rows = boxes(i)
        rows[1:3, 2 + i % 2] = 0
        write_rows(root / part / "anno" / f"{sequence}.txt", rows.tolist())
        for t in range(FRAMES):
            write_image(root / part / "frames" / sequence / f"{t}.jpg", color(i, t))
    return root


def coco(root: Path, images: str = "train2017") -> Path:
    """An object in each of three images; besides them a crowd, and an object that is too small."""
    notes = [
        {"image_id": 100 + i, "bbox": boxes(i, 1)[0].tolist(), "iscrowd": 0, "category_id": 1}
        for i in range(SEQUENCES)
    ]  # fmt: skip
    notes.insert(1, {"image_id": 100, "bbox": [5, 5, 50, 50], "iscrowd": 1, "category_id": 1})
    notes.insert(2, {"image_id": 101, "bbox": [5, 5, 50, 7.9], "iscrowd": 0, "category_id": 1})
    content = {"images": [{"id": 100 + i, "file_name": f"{100 + i:012d}.jpg"} for i in range(SEQUENCES)]}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content | {"annotations": notes}))
    for i in range(SEQUENCES):
        write_image(root / images / f"{100 + i:012d}.jpg", color(i, 0))
    return root


def imagenet_vid(root: Path) -> Path:
    """Two snippets, the first with two tracks: sequences 0, 1 and 2. Occluded in frame 1, not there in frame 2."""
    part = "ILSVRC2015_VID_train_0000"
    for snippet, tracks in enumerate(((0, 1), (2,))):
        name = f"{part}/ILSVRC2015_train_{snippet:08d}"
        for t in range(FRAMES):
            objects = "".join(_vid_object(i, t) for i in tracks if t != 2)
            path = root / "Annotations" / "VID" / "train" / name / f"{t:06d}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"<annotation><folder>{name}</folder>{objects}</annotation>")
            write_image(root / "Data" / "VID" / "train" / name / f"{t:06d}.JPEG", color(2 * snippet, t))
    return root


def _vid_object(i: int, t: int) -> str:
    x, y, w, h = boxes(i)[t].astype(int)
    corners = f"<xmax>{x + w}</xmax><xmin>{x}</xmin><ymax>{y + h}</ymax><ymin>{y}</ymin>"
    return (
        f"<object><trackid>{i % 2}</trackid><name>n02691156</name><bndbox>{corners}</bndbox>"
        f"<occluded>{int(t == 1)}</occluded><generated>0</generated></object>"
    )


MAKERS: dict[str, Callable[[Path], Path]] = {
    "got10k": got10k, "lasot": lasot, "trackingnet": trackingnet, "coco": coco, "imagenet_vid": imagenet_vid
}  # fmt: skip


def following(i: int, frames: int) -> np.ndarray:
    """(frames, 4) for sequences of any length: whole numbers, and inside the image."""
    t = np.arange(frames)
    return np.stack((10 + i + t % 50, 20 + t % 30, 40 - t % 7, 30 + 0 * t), axis=1).astype(np.float64)


def write_images(folder: Path, numbers: Sequence[int], digits: int, suffix: str = ".jpg") -> None:
    """Files of one gray image."""
    folder.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(suffix, np.full((24, 32, 3), 128, np.uint8))[1].tobytes()
    for number in numbers:
        (folder / f"{number:0{digits}d}{suffix}").write_bytes(data)


def got10k_val(root: Path) -> list[str]:
    got10k(root, split="val")
    return [f"GOT-10k_Val_{i + 1:06d}" for i in range(SEQUENCES)]


def trackingnet_test(root: Path) -> list[str]:
    """The first box of each."""
    names = ["-x_0", "abc_0", "abc_1"]
    for i, name in enumerate(names):
        write_rows(root / "TEST" / "anno" / f"{name}.txt", following(i, 1).tolist())
        write_images(root / "TEST" / "frames" / name, range(FRAMES), 1)
    return names


def lasot_test(root: Path) -> list[str]:
    names = ["airplane-1", "airplane-9", "volleyball-19"]
    lasot(root, names)
    return names


def lasot_ext(root: Path) -> list[str]:
    names = ["atv-1", "atv-2", "wingsuit-10"]
    lasot(root, names)
    return names


NFS = {"car_camaro": 36, "car_jumping": 22, "shuffleboard_5": 32}  # frames at 30 a second


def nfs(root: Path) -> list[str]:
    """As pytracking's authors sorted it."""
    for i, (name, frames) in enumerate(NFS.items()):
        write_rows(root / "anno" / f"nfs_{name}.txt", following(i, frames).tolist(), "\t")
        write_images(root / "sequences" / name, range(1, frames + 1), 5)
    return list(NFS)


def nfs_published(root: Path) -> list[str]:
    """At both rates, with the boxes of 240 frames a second in both."""
    for i, (name, frames) in enumerate(NFS.items()):
        rows = following(i, 8 * frames)
        corners = np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:]), axis=1).astype(int)
        lines = [f'0 {" ".join(map(str, row))} {t + 1} 0 0 1 "a car"\n' for t, row in enumerate(corners.tolist())]
        for rate, count in (("30", frames), ("240", 8 * frames)):
            folder = root / name / rate
            write_images(folder / name, range(1, count + 1), 5)
            (folder / f"{name}.txt").write_text("".join(lines))
    return list(NFS)


def uav123(root: Path) -> list[str]:
    """One cut out of the middle of a video, and two whole ones; the target is absent in the last frame but one."""
    cuts = {"person8_2": ("person8", 1075, 1525), "uav5": ("uav5", 1, 139), "uav6": ("uav6", 1, 109)}
    for i, (name, (video, start, end)) in enumerate(cuts.items()):
        rows = following(i, end - start + 1)
        rows[-2] = np.nan
        write_rows(root / "anno" / "UAV123" / f"{name}.txt", rows.tolist())
        flags = [float(k in (0, 3, 11)) for k in range(12)]
        write_rows(root / "anno" / "UAV123" / "att" / f"{name}.txt", [flags])
        write_images(root / "data_seq" / "UAV123" / video, range(start, end + 1), 6)
    return list(cuts)


def otb100(root: Path) -> list[str]:
    """Truth between commas, tabs and spaces; David has images before, and Football1 after, those with a box."""
    cuts = {
        "David": ("David", "groundtruth_rect.txt", 300, 770),
        "Football1": ("Football1", "groundtruth_rect.txt", 1, 74),
        "Jogging-1": ("Jogging", "groundtruth_rect.1.txt", 1, 307),
        "Jogging-2": ("Jogging", "groundtruth_rect.2.txt", 1, 307),
        "Tiger1": ("Tiger1", "groundtruth_rect.txt", 1, 354),
    }
    for i, (name, (folder, truth, start, end)) in enumerate(cuts.items()):
        write_rows(root / folder / truth, following(i, end - start + 1).tolist(), ",\t "[i % 3])
        numbers = {"David": range(296, 773), "Football1": range(1, 82)}.get(name, range(start, end + 1))
        write_images(root / folder / "img", numbers, 4)
    return list(cuts)


# Each makes a miniature of a benchmark, and returns the names of its sequences in their published order.
BENCHMARK_MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "got10k": got10k_val, "trackingnet": trackingnet_test, "lasot": lasot_test, "lasot_ext": lasot_ext, "nfs": nfs,
    "uav123": uav123, "otb100": otb100,
}  # fmt: skip
