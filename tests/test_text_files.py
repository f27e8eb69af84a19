"""Text files that people make: byte-order marks, blank lines, other encodings, and annotations without a box."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fermt.data.pool.sets import BoxedObjects
from fermt.datasets import open_benchmark, open_set
from fermt.datasets.folder import read_boxes, read_flags
from fermt.evaluation.record import read_record
from fermt.evaluation.results import read_result
from fermt.textfiles import read_json, read_lines, read_names, read_text
from fermt.tracking.starts import Start, parse_box, read_starts
from fermt.training import read_config

from .support import datasets
from .support.errors import lacking, refused

BOM = codecs.BOM_UTF8
PARSERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "text.txt": (b"a\n", read_text),
    "lines.txt": (b"a\n\nb\n\n", read_lines),
    "names.txt": (b"a\nb\n", read_names),
    "groundtruth.txt": (b"1,2,3,4\n", lambda path: read_boxes(path).tolist()),
    "absence.label": (b"0\n1\n", lambda path: read_flags(path, 2).tolist()),
    "one.txt": (b"1,2,3,4\n", lambda path: read_result(path.parent, "one")[0].boxes.tolist()),
    "starts.csv": (b"frame,id,x,y,w,h\n0,a,1,2,3,4\n", read_starts),
    "config.json": (b'{"base": "synthetic-tiny", "epochs": 3}', read_config),
    "run.json": (b'{"run": {"model": 1}, "speed": ""}', lambda path: read_record(path.parent)),
    "values.json": (b"[1, 2]", read_json),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, name: str) -> None:
    content, parse = PARSERS[name]
    (tmp_path / name).write_bytes(content)
    expected = parse(tmp_path / name)
    (tmp_path / name).write_bytes(BOM + content.replace(b"\n", b"\r\n"))
    found = parse(tmp_path / name)
    assert found == (expected.replace("\n", "\r\n") if isinstance(expected, str) else expected)


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_not_utf_8_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    content, parse = PARSERS[name]
    for damaged in (content + b"\n\xff\xfe", codecs.BOM_UTF16_LE + content.decode().encode("utf-16-le")):
        (tmp_path / name).write_bytes(damaged)
        with refused(ValueError, f"{name}'"):
            parse(tmp_path / name)


@pytest.mark.parametrize("text", ["[1", "[" * 100_000, '{"x": ' + "1" * 5000 + "}"])
def test_what_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with refused(ValueError, "a.json'"):
        read_json(tmp_path / "a.json")


def test_lists_of_sequences_with_a_mark_and_blank_lines(tmp_path: Path) -> None:
    root = datasets.got10k(tmp_path / "root")
    listed = root / "train" / "list.txt"
    names = listed.read_text().split()
    listed.write_bytes(BOM + "\r\n\r\n".join(["", *names]).encode())
    assert len(open_set("got10k", root, cache=False)) == len(names)
    (tmp_path / "only.txt").write_bytes(BOM + f"\n {names[1]} \n\n{names[0]}\n".encode())
    assert len(open_set("got10k", root, only=tmp_path / "only.txt", cache=False)) == 2
    (tmp_path / "only.txt").write_text("\n1\n\n0\n")
    assert len(open_set("got10k", root, only=tmp_path / "only.txt", cache=False)) == 2
    validation = datasets.got10k(tmp_path / "val", split="val")
    (tmp_path / "only.txt").write_bytes(BOM + b"\n0\n\n")
    assert len(open_benchmark("got10k", validation, only=tmp_path / "only.txt")) == 1


def test_stray_files_of_macos_are_no_annotations(tmp_path: Path) -> None:
    for name, folder in (
        ("trackingnet", "TRAIN_0/anno/._abc_0.txt"),
        ("imagenet_vid", "Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/._000000.xml"),
    ):
        root = getattr(datasets, name)(tmp_path / name)
        expected = len(open_set(name, root, cache=False))
        (root / folder).write_bytes(b"\0\5\26\7")
        assert len(open_set(name, root, cache=False)) == expected


BROKEN = [  # annotations, and what must be said of each
    (("id 71", "None"), {"id": 71, "image_id": 0, "iscrowd": 0}),
    (("id 72", [1, 2, 3]), {"id": 72, "image_id": 0, "bbox": [1, 2, 3], "iscrowd": 0}),
    (("id 76", "iscrowd", "'0'"), {"id": 76, "image_id": 0, "bbox": [1, 2, 30, 40], "iscrowd": "0"}),
    (("id 73", [1, 2, math.nan, 4]), {"id": 73, "image_id": 0, "bbox": [1, 2, math.nan, 4]}),
    (("id 74", "'none'"), {"id": 74, "image_id": 0, "bbox": "none"}),
    (("id 75", 999), {"id": 75, "image_id": 999, "bbox": [1, 2, 30, 40]}),
    (("number 3", "None"), {"bbox": [1, 2, 30, 40]}),
    (("number 3", "int"), 5),
]


@pytest.mark.parametrize(("values", "note"), BROKEN)
def test_an_annotation_without_a_box_is_left_out_and_named(
    tmp_path: Path, values: tuple[object, ...], note: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = datasets.coco(tmp_path / "root")
    path = root / "annotations" / "instances_train2017.json"
    before = open_set("coco", root, cache=False)
    content = json.loads(path.read_text())
    if isinstance(note, dict) and note.get("image_id") == 0:
        note = note | {"image_id": content["images"][0]["id"]}
    content["annotations"].append(note)
    path.write_text(json.dumps(content))
    read = open_set("coco", root, cache=False)
    assert len(read) == len(before)
    assert all(np.array_equal(read.annotation(i).boxes, before.annotation(i).boxes) for i in range(len(read)))
    count = len(content["annotations"])
    assert lacking(caplog.text, 1, count) == []
    caplog.clear()
    (tmp_path / "boxes").mkdir()
    for image in content["images"]:
        image.update(width=120, height=90)
    (tmp_path / "boxes" / "annotations.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fermt.data.pool.sets.in_split", lambda name, split: True)
        assert len(BoxedObjects(tmp_path)) > 0
    assert lacking(caplog.text.replace(f"number {count - 1}", "number 3"), *values) == []


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    """Objects of the one would be looked for in the other."""
    root = datasets.coco(tmp_path / "root")
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    again = content["images"][0]["id"]
    content["images"].append({"id": again, "file_name": "another.jpg"})
    path.write_text(json.dumps(content))
    with refused(ValueError, "instances_train2017.json", "id", again):
        open_set("coco", root, cache=False)


def test_boxes_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    for text, expected in (
        ("1,2,3,4\n\n# more\n5 6 7 8\n", [Start(0, "0", (1, 2, 3, 4)), Start(0, "1", (5, 6, 7, 8))]),
        ("x,y,w,h\n1,2,3,4\n", [Start(0, "0", (1, 2, 3, 4))]),
        ('"Frame", "X", "Y", "W", "H"\n5, 1, 2, 3, 4\n', [Start(5, "0", (1, 2, 3, 4))]),
        ("id;w;h;x;y;class\na;3;4;1;2;ball\n", [Start(0, "a", (1, 2, 3, 4))]),
        ("3,a,1,2,3,4\n", [Start(3, "a", (1, 2, 3, 4))]),
        ('{"frame": 2, "id": "a", "x": 1, "y": 2, "w": 3, "h": 4}\n', [Start(2, "a", (1, 2, 3, 4))]),
        ('{"id": null, "x": 1, "y": 2, "w": 3, "h": 4}\n', [Start(0, "0", (1, 2, 3, 4))]),
        ("3,red car,1,2,3,4\n", [Start(3, "red car", (1, 2, 3, 4))]),
        ('frame,id,x,y,w,h,score\n3,"a, ""b""; c",1,2,3,4,1\n', [Start(3, 'a, "b"; c', (1, 2, 3, 4))]),
    ):
        path.write_text(text)
        assert read_starts(path) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1,2,3\n", 1),
        ("1,2,3,nan\n", 1),
        ("1,2,3,inf\n", 1),
        ("x,y,w,h\n1,2,3\n", 2),
        ("x,y,w\n1,2,3\n", 1),
        ("-1,a,1,2,3,4\n", 1),
        ("²,a,1,2,3,4\n", 1),
        ('{"x": 1}\n', 1),
        ("{\n", 1),
        ("[1, 2, 3, 4]\n", 1),
        ("1,2,3,4\n1,2,3,4,5\n", 2),
        ("x,y,x,w,h\n1,2,3,4,5\n", 1),
        ('{"x": 1, "y": 2, "w": true, "h": 4}\n', 1),
        ('{"x": 1, "y": 2, "w": 3, "h": 4, "w": 5}\n', 1),
        ('{"id": "\\ud800", "x": 1, "y": 2, "w": 3, "h": 4}\n', 1),
        ("2,5;30,5;30;40\n", 1),  # decimal commas
        ("2,5; 30,5; 30; 40\n", 1),
        ("2;5,5;30,5;30;40\n", 1),
        ("1,,2,3,4\n", 1),
        (f"1,{'2' * 200_000},3,4\n", 1),
    ],
)
def test_boxes_in_no_form(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "boxes").write_text(text)
    with refused(ValueError, "boxes'", f"line {line}"):
        read_starts(tmp_path / "boxes")


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,1e999", "1,,2,3", "1_0,2,3,4", "٣,2,3,4"])
def test_no_box(text: str) -> None:
    assert parse_box(text) is None
