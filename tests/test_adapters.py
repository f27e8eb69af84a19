"""The adapters: each gives the Tracker's boxes through the interface that it is for; TraX's is in test_adapter_vot.py.

`make toolkits` makes an environment with the toolkits and runs both files in it; elsewhere some tests are skipped.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt.adapters import opencv, pytracking

from .support.errors import refused
from .support.following import BOX, FRAMES, bgr, follow, model, tracks

FORMS: dict[str, Callable[[Path], Any]] = {
    "a model": lambda at: model(),
    "weights": lambda at: at / "small.safetensors",
    "weights, as a string": lambda at: str(at / "small.safetensors"),
    "a packed model": lambda at: fk.frame.load(at / "small.fermt"),
    "a packed file": lambda at: at / "small.fermt",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model(tmp_path: Path, form: str) -> None:
    fermt.save(model(), tmp_path / "small.safetensors")
    if "packed" in form:
        if reason := fk.frame.unavailable_reason(torch.float32):
            pytest.skip(f"no packed frame: {reason}")
        fk.frame.pack(model()).save(tmp_path / "small.fermt")
    tracker = pytracking.Tracker(FORMS[form](tmp_path))
    tracker.initialize(FRAMES[0], {"init_bbox": BOX})
    assert tracker.track(FRAMES[1])["target_bbox"] == list(tracks()[0].box)


BAD_SOURCES: list[tuple[Callable[[Path], Any], dict[str, Any], type[Exception], tuple[str, ...]]] = [
    (lambda at: None, {}, TypeError, (".safetensors", ".fermt", "NoneType")),
    (lambda at: at / "none.safetensors", {}, FileNotFoundError, ("none.safetensors",)),
    (lambda at: str(at / "none.fermt"), {}, FileNotFoundError, ("none.fermt",)),
    (lambda at: at / "none.fermt", {"device": "cuda"}, ValueError, ("none.fermt", "'cuda'")),
    (lambda at: model(), {"device": "cpu"}, ValueError, ("device", "'cpu'")),
    (lambda at: model(), {"bgr": False}, TypeError, ("'bgr'",)),
    (lambda at: model(), {"patient": 3}, TypeError, ("'patient'",)),
]


@pytest.mark.parametrize(("source", "options", "error", "values"), BAD_SOURCES)
def test_bad_sources(
    tmp_path: Path,
    source: Callable[[Path], Any],
    options: dict[str, Any],
    error: type[Exception],
    values: tuple[str, ...],
) -> None:
    with refused(error, *values):
        opencv.Tracker(source(tmp_path), **options)


def test_opencv_boxes() -> None:
    tracker = opencv.Tracker(model())
    tracker.init(bgr(FRAMES[0]), BOX)
    assert tracker.track == fermt.Track(BOX, 1.0, False)
    for frame, track in zip(FRAMES[1:], tracks(), strict=True):
        assert tracker.update(bgr(frame)) == (True, tuple(map(round, track.box)))
        assert tracker.track == track
        assert tracker.getTrackingScore() == track.score


@pytest.mark.parametrize("make", [cv2.TrackerMIL.create, lambda: opencv.Tracker(model())], ids=["OpenCV's", "ours"])
def test_opencv_types(make: Callable[[], Any]) -> None:
    """One of OpenCV's trackers and ours, by the same calls."""
    tracker = make()
    assert tracker.init(image=bgr(FRAMES[0]), boundingBox=(30, 20, 26, 22)) is None
    ok, box = tracker.update(image=bgr(FRAMES[0]))
    assert type(ok) is bool
    assert type(box) is tuple
    assert [type(value) for value in box] == [int] * 4


def test_opencv_not_ok_while_lost() -> None:
    tracker = opencv.Tracker(model(), lost_below=1.0, patience=2)
    tracker.init(bgr(FRAMES[0]), BOX)
    assert [tracker.update(bgr(frame))[0] for frame in FRAMES[1:]] == [True, False, False, False]
    assert tracker.update(bgr(FRAMES[1])) == (False, (30, 20, 26, 22))


def test_opencv_before_init() -> None:
    tracker = opencv.Tracker(model())
    with refused(RuntimeError, "getTrackingScore", "Tracker.init"):
        tracker.getTrackingScore()
    with refused(RuntimeError, "Tracker.update", "Tracker.init"):
        tracker.update(FRAMES[0])


def run_sequence(tracker_class: Callable[..., Any], dataset: tuple[str, ...]) -> dict[str, list[Any]]:
    """A sequence as the evaluation of pytracking and its descendants runs it."""
    tracker = tracker_class(SimpleNamespace(save_all_boxes=False, visualization=False, debug=0), *dataset)
    tracker.visdom = None
    assert not tracker.params.save_all_boxes
    assert not tracker.params.visualization
    out = tracker.initialize(FRAMES[0], {"init_bbox": list(BOX)})
    output: dict[str, list[Any]] = {"target_bbox": [out["target_bbox"]], "best_score": []}
    for frame in FRAMES[1:]:
        out = tracker.track(frame, {"previous_output": OrderedDict(out)})
        for key, values in output.items():
            values.append(out[key])
    return output


@pytest.mark.parametrize("dataset", [(), ("lasot",)], ids=["pytracking", "OSTrack"])
def test_pytracking(dataset: tuple[str, ...]) -> None:
    output = run_sequence(lambda params, name=None: pytracking.Tracker(model(), params=params), dataset)
    assert output["target_bbox"] == [list(BOX), *(list(track.box) for track in tracks())]
    assert output["best_score"] == [track.score for track in tracks()]
    assert all(type(value) is float for box in output["target_bbox"] for value in box)


def test_pytracking_takes_arrays_and_no_info() -> None:
    tracker = pytracking.Tracker(model())
    tracker.initialize(FRAMES[0], {"init_bbox": np.array(BOX)})
    assert tracker.track(FRAMES[1])["target_bbox"] == list(tracks()[0].box)


def test_pytracking_refuses_objects() -> None:
    tracker = pytracking.Tracker(model())
    several = {"init_bbox": OrderedDict({1: BOX, 2: BOX}), "init_object_ids": [1, 2], "object_ids": [1, 2]}
    with refused(ValueError, "init_object_ids", [1, 2]):
        tracker.initialize(FRAMES[0], several)
    with refused(ValueError, "init_bbox", "'init_mask'"):
        tracker.initialize(FRAMES[0], {"init_mask": None})


def test_got10k_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "got10k.trackers", None)
    monkeypatch.delitem(sys.modules, "fermt.adapters.got10k", raising=False)
    with refused(ImportError, "got10k.trackers", "pip install got10k"):
        import fermt.adapters.got10k  # noqa: F401


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The GOT-10k toolkit, and the adapter for it."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    experiments = pytest.importorskip("got10k.experiments", reason="the GOT-10k toolkit (got10k) is not installed")
    from got10k.trackers import Tracker as Base
    from PIL import Image

    from fermt.adapters.got10k import Tracker

    return SimpleNamespace(Experiment=experiments.ExperimentGOT10k, Base=Base, Image=Image, Tracker=Tracker)


@pytest.fixture
def got10k_root(toolkit: SimpleNamespace, tmp_path: Path) -> Path:
    """Two sequences in the data set's layout; the target stays where it is."""
    names = [f"GOT-10k_Val_{i:06}" for i in (1, 2)]
    for name in names:
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        for i, frame in enumerate(FRAMES):
            assert cv2.imwrite(str(folder / f"{i + 1:08}.jpg"), bgr(frame))
        (folder / "groundtruth.txt").write_text(len(FRAMES) * (",".join(f"{v:.4f}" for v in BOX) + "\n"))
        (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (120, 90)\n")
        for label, value in {"cover": 8, "absence": 0, "cut_by_image": 0}.items():
            (folder / f"{label}.label").write_text(len(FRAMES) * f"{value}\n")
    (tmp_path / "data" / "val" / "list.txt").write_text("\n".join(names) + "\n")
    return tmp_path / "data"


def test_got10k_runs_it(toolkit: SimpleNamespace, got10k_root: Path, tmp_path: Path) -> None:
    """The toolkit's own runner, its result files, and its report on them."""
    tracker = toolkit.Tracker(model(), name="small")
    assert isinstance(tracker, toolkit.Base)
    experiment = toolkit.Experiment(
        str(got10k_root), "val", result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports")
    )
    experiment.run(tracker)
    for name in experiment.dataset.seq_names:
        images = [toolkit.Image.open(file) for file in sorted((got10k_root / "val" / name).glob("*.jpg"))]
        expected = [BOX, *(track.box for track in follow([np.asarray(image) for image in images]))]
        folder = tmp_path / "results" / "GOT-10k" / "small" / name
        # It is deterministic, so there is one repetition.
        assert sorted(file.name for file in folder.iterdir()) == [f"{name}_001.txt", f"{name}_time.txt"]
        np.testing.assert_allclose(np.loadtxt(folder / f"{name}_001.txt", delimiter=","), expected, atol=5.01e-4)
    overall = experiment.report(["small"])["small"]["overall"]
    assert 0 <= overall["ao"] <= 1
    assert overall["speed_fps"] > 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_got10k_images_of_any_mode(toolkit: SimpleNamespace, mode: str) -> None:
    by_way_of = "L" if mode == "I;16" else "RGB"
    images = [toolkit.Image.fromarray(frame).convert(by_way_of).convert(mode) for frame in FRAMES]
    tracker = toolkit.Tracker(model())
    tracker.init(images[0], np.array(BOX))
    boxes = [tracker.update(image) for image in images[1:]]
    assert all(box.shape == (4,) and box.dtype == np.float64 for box in boxes)
    expected = follow([np.asarray(image.convert("RGB")) for image in images])
    np.testing.assert_array_equal(boxes, [track.box for track in expected])


def test_got10k_refuses_arrays(toolkit: SimpleNamespace) -> None:
    with refused(TypeError, "PIL", "ndarray"):
        toolkit.Tracker(model()).init(FRAMES[0], BOX)
