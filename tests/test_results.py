"""Files of results: what is written is read; what others write is read; what is wrong is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fermt.evaluation import results
from fermt.evaluation.results import ResultError, read_result, write_result

from .support.errors import refused

BOXES = np.array([(10, 20, 30, 40), (10.1234, -20.5, 30, 0), (1e3, 0, 3, 4)])
SECONDS = np.array([0, 0.0125, 0.123456789])


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_written_and_read(tmp_path: Path) -> None:
    write_result(tmp_path / "new" / "folder", "one", BOXES, SECONDS)
    (result,) = read_result(tmp_path / "new" / "folder", "one")
    np.testing.assert_allclose(result.boxes, [[10, 20, 30, 40], [10.123, -20.5, 30, 0], [1000, 0, 3, 4]], rtol=0)
    assert result.seconds is not None
    np.testing.assert_allclose(result.seconds, [0, 0.0125, 0.12345679], rtol=0)
    assert (tmp_path / "new/folder/one.txt").read_text().splitlines()[1] == "10.123,-20.500,30.000,0.000"
    assert (tmp_path / "new/folder/times/one_time.txt").read_text().splitlines()[1] == "0.01250000"


def test_what_is_cut_off_leaves_no_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boxes are there only once all is written."""
    replaced: list[str] = []

    def replace(source: Path, target: Path) -> None:
        replaced.append(target.name)
        if target.name == "one.txt":
            raise OSError("no space left")

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OSError, match="no space left"):
        write_result(tmp_path, "one", BOXES, SECONDS)
    assert replaced == ["one_time.txt", "one.txt"]
    assert not list(tmp_path.glob("*.txt"))


@pytest.mark.parametrize(
    ("boxes", "seconds", "values"),
    [
        (BOXES[:, :3], SECONDS, ((3, 3), (3,))),
        (BOXES, SECONDS[:2], ((3, 4), (2,))),
        (np.where(BOXES == -20.5, np.nan, BOXES), SECONDS, ([10.1234, math.nan, 30.0, 0.0], "frame 1")),
        (BOXES, np.array([0, 0, np.inf]), ("inf", "frame 2")),
    ],
)
def test_what_is_not_written(
    tmp_path: Path, boxes: np.ndarray, seconds: np.ndarray, values: tuple[object, ...]
) -> None:
    with refused(ValueError, "one", *values):
        write_result(tmp_path, "one", boxes, seconds)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["\r\n", ",\n", " , \n"])
@pytest.mark.parametrize("separator", [",", "\t", " ", ", "])
def test_separators(tmp_path: Path, separator: str, end: str) -> None:
    put(tmp_path / "one.txt", "".join(separator.join(map(str, box)) + end for box in BOXES.tolist()))
    (result,) = read_result(tmp_path, "one")
    assert (result.boxes == BOXES).all()
    assert result.seconds is None


def test_times_beside_the_boxes(tmp_path: Path) -> None:
    """As pytracking writes them."""
    put(tmp_path / "one.txt", "1\t2\t3\t4\n5\t6\t7\t8\n")
    put(tmp_path / "one_time.txt", "0.5\n0.25\n")
    (result,) = read_result(tmp_path, "one")
    assert result.seconds is not None
    assert result.seconds.tolist() == [0.5, 0.25]


def test_repetitions_in_their_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        put(tmp_path / "a[1]" / f"a[1]_{number:03d}.txt", f"{number},2,3,4\n5,6,7,8\n")
    put(tmp_path / "a[1]" / "a[1]_time.txt", "0.1,0.2\n0.3,nan\n")
    first, second, last = read_result(tmp_path, "a[1]")
    assert [run.boxes[0, 0] for run in (first, second, last)] == [1, 2, 10]
    assert first.seconds is not None
    assert first.seconds.tolist() == [0.1, 0.3]
    assert second.seconds is not None
    assert second.seconds[0] == 0.2
    assert np.isnan(second.seconds[1])
    assert last.seconds is None


def test_nan_and_zeros_are_read_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "one.txt", "NaN,NaN,NaN,NaN\n0,0,0,0\n")
    (result,) = read_result(tmp_path, "one")
    assert np.isnan(result.boxes[0]).all()
    assert (result.boxes[1] == 0).all()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ()),
        ("\n\n", ()),
        ("1,2,3,4\n1,2,3\n", ("line 2", "'1,2,3'")),
        ("1,2,3,4\n\n1,2,3,4\n", ("line 2", "''")),
        ("x,y,w,h\n1,2,3,4\n", ("line 1", "'x,y,w,h'")),
        ("1,2,3,4,0.9\n", ("line 1", "'1,2,3,4,0.9'")),
        ("1,2,3,4+5i\n", ("line 1", "'1,2,3,4+5i'")),
        ("1;2;3;4\n", ("line 1", "'1;2;3;4'")),
        ("1,,2,3,4\n", ("line 1", "'1,,2,3,4'")),
        ("1,2,3,1_0\n", ("line 1", "'1,2,3,1_0'")),
        ("1,2,3,٣\n", ("line 1", "'1,2,3,٣'")),
    ],
)
def test_bad_boxes(tmp_path: Path, text: str, values: tuple[str, ...]) -> None:
    put(tmp_path / "one.txt", text)
    with refused(ResultError, "one.txt'", *values):
        read_result(tmp_path, "one")


def test_bad_files(tmp_path: Path) -> None:
    put(tmp_path / "one.txt", "1,2,3,4\n")
    put(tmp_path / "times" / "one_time.txt", "0.1\n0.1,0.2\n")
    with refused(ResultError, "one_time.txt'", [1, 2]):
        read_result(tmp_path, "one")
    put(tmp_path / "times" / "one_time.txt", "fast\n")
    with refused(ResultError, "one_time.txt'", "line 1", "'fast'"):
        read_result(tmp_path, "one")
    (tmp_path / "one.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with refused(ResultError, "one.txt'", "line 1", "UTF-8"):
        read_result(tmp_path, "one")


def test_what_is_not_there(tmp_path: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "none"):
        read_result(tmp_path / "none", "one")
    with pytest.raises(FileNotFoundError) as caught:
        read_result(tmp_path, "one")
    assert results.LAYOUT in str(caught.value)
    put(tmp_path / "tracker" / "one" / "one_001.txt", "1,2,3,4\n")
    with refused(FileNotFoundError, tmp_path / "tracker"):
        read_result(tmp_path, "one")


@pytest.mark.parametrize(
    ("dataset", "name", "file"),
    [
        ("uav123", "bike1", "uav_bike1"),
        ("nfs", "Gymnastics", "nfs_Gymnastics"),
        ("otb100", "Jogging-1", "Jogging_1"),
        ("otb100", "Jogging-1", "Jogging.1"),
        ("otb100", "Jogging-1", "Jogging-1"),
    ],
)
def test_other_toolkits_names_of_a_sequence(dataset: str, name: str, file: str, tmp_path: Path) -> None:
    write_result(tmp_path, file, BOXES, SECONDS)
    (result,) = read_result(tmp_path, name, dataset)
    assert len(result.boxes) == len(BOXES)
    assert result.seconds is not None
    if file != name:
        with refused(FileNotFoundError, f"'{name}'"):
            read_result(tmp_path, name, "lasot")
    write_result(tmp_path, name, BOXES[:1], SECONDS[:1])  # its own name comes first
    assert len(read_result(tmp_path, name, dataset)[0].boxes) == 1
