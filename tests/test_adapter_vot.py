"""The TraX tracker through TraX's own client and the VOT toolkit, where they are installed (`make toolkits`)."""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import fermt
from fermt.adapters import vot

from .conftest import ROOT
from .support.errors import lacking, refused
from .support.following import BOX, FRAMES, bgr, model, tracks

COMMAND = "python -m fermt.adapters.vot --weights /path/to/fermt.safetensors"  # of the example
Connect = Callable[[], AbstractContextManager[tuple[Any, "subprocess.Popen[bytes]"]]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    fermt.save(model(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.fixture
def ini(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's trackers.ini in a workspace, with this Python and these weights."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    text = (ROOT / "examples" / "vot" / "trackers.ini").read_text()
    assert f"command = {COMMAND}\n" in text
    (tmp_path / "workspace").mkdir()
    path = tmp_path / "workspace" / "trackers.ini"
    path.write_text(text.replace(COMMAND, f"{sys.executable} -m fermt.adapters.vot --weights {weights}"))
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{i:08}.png") for i in range(len(FRAMES))]
    assert all(cv2.imwrite(path, bgr(frame)) for path, frame in zip(paths, FRAMES, strict=True))
    return paths


def test_the_command(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trax", None)
    helped = CliRunner().invoke(vot.app, ["--help"])
    assert helped.exit_code == 0
    assert "--weights" in helped.output
    without = CliRunner().invoke(vot.app, ["--weights", str(weights)])
    assert without.exit_code == 1
    assert lacking(without.output, "trax", "pip install vot-trax") == []
    missing = CliRunner().invoke(vot.app, ["--weights", "none.safetensors"])
    assert missing.exit_code == 1
    assert "'none.safetensors'" in missing.output


@pytest.fixture
def connect(ini: Path) -> Connect:
    """Starts the tracker, and connects TraX's client to it."""
    pytest.importorskip("trax", reason="TraX (vot-trax) is not installed")
    from trax.client import Client

    parser = configparser.ConfigParser()
    parser.read(ini)
    command = shlex.split(parser["FERMT"]["command"])

    @contextmanager
    def connected() -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ini.parent, **pipes)
        try:
            yield Client((process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None), process
        finally:
            process.kill()
            process.communicate()

    return connected


def test_trax(connect: Connect, images: list[str]) -> None:
    """Files and arrays, several targets one after the other, in every form that a client may know them in."""
    import trax

    x, y, w, h = BOX
    corners = [(x + w / 2, y), (x + w, y + h / 2), (x + w / 2, y + h), (x, y + h / 2)]
    rectangle, polygon = trax.Rectangle.create(*BOX), trax.Polygon.create(corners)
    mask = np.zeros((30, 40), np.uint8)
    mask[2:24, 3:29] = 1
    files = [trax.FileImage.create(path) for path in images]
    arrays = [trax.MemoryImage.create(frame) for frame in FRAMES]
    with connect() as (client, process):
        assert client.tracker_name == "FERMT"
        assert client.region_formats == ["rectangle"]
        assert client.channels == ["color"]
        assert client.get("multiobject") is False
        for region, frames in ((rectangle, files), (polygon, arrays)):
            ((first, properties),), _ = client.initialize({"color": frames[0]}, [(region, {})], {})
            assert first.bounds() == BOX
            assert properties == {"confidence": "1.0"}
            for frame, track in zip(frames[1:], tracks(), strict=True):
                ((found, properties),), _ = client.frame({"color": frame}, {}, [])
                np.testing.assert_allclose(found.bounds(), track.box, atol=1e-3)
                assert float(properties["confidence"]) == pytest.approx(track.score, abs=1e-6)
        ((first, _),), _ = client.initialize({"color": files[0]}, [(trax.Mask.create(mask, x=27, y=18), {})], {})
        assert first.bounds() == (30, 20, 26, 22)
        with pytest.raises(trax.TraxException, match="Too many objects"):
            client.initialize({"color": files[0]}, [(rectangle, {}), (rectangle, {})], {})
        client.quit()
        assert process.wait(30) == 0


@pytest.mark.parametrize("case", ["image", "box"])
def test_trax_says_what_is_wrong(connect: Connect, images: list[str], case: str) -> None:
    import trax

    Path(images[1]).write_bytes(b"broken")
    path, box, values = {
        "image": (images[1], BOX, (f"{Path(images[1]).name}'", 6)),
        "box": (images[0], (500, 20, 30, 30), ((500.0, 20.0, 30.0, 30.0), "120 x 90")),
    }[case]
    with connect() as (client, process):
        with refused(trax.TraxException, *values):
            client.initialize({"color": trax.FileImage.create(path)}, [(trax.Rectangle.create(*box), {})], {})
        assert process.wait(30) == 1


@pytest.fixture
def votkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The VOT toolkit, whose temporary files go to the test's folder."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        import vot as package
    except (ImportError, TypeError) as error:  # TypeError: its attributee 0.1.10, under Python 3.11 or newer
        pytest.skip(f"the VOT toolkit (vot-toolkit) cannot be imported: {error!r}")
    return package


def test_vot_test(votkit: Any, ini: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What `vot test FERMT` runs; the command itself would also look for a newer version on the network."""
    from vot.tracker import Registry
    from vot.tracker.tests import test_tracker_runtime as run

    caplog.set_level("INFO", logger=votkit.get_logger().name)
    run(Registry([str(ini.parent)])["FERMT"].runtime(log=True))
    assert "Processing frame 49/49" in caplog.text
    assert "Test concluded successfuly" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_vot_evaluate(votkit: Any, ini: Path, images: list[str]) -> None:
    """What `vot evaluate FERMT` runs, over one sequence, and the boxes that it keeps."""
    from vot.experiment import run_experiment
    from vot.region.io import read_trajectory
    from vot.workspace import Workspace

    workspace = ini.parent
    sequence = workspace / "sequences" / "noise"
    (sequence / "color").mkdir(parents=True)
    for i, path in enumerate(images):
        Path(path).rename(sequence / "color" / f"{i + 1:08}.png")
    (sequence / "groundtruth.txt").write_text(len(images) * (",".join(map(str, BOX)) + "\n"))
    (sequence / "sequence").write_text("name=noise\nfps=30\nformat=default\nchannels.color=color/%08d.png\n")
    (workspace / "sequences" / "list.txt").write_text("noise\n")
    experiments = "experiments:\n  baseline:\n    type: unsupervised\n    repetitions: 1\n"
    (workspace / "stack.yaml").write_text(f"title: noise\n{experiments}")
    Workspace.initialize(str(workspace), {"stack": "./stack.yaml", "registry": ["./trackers.ini"]}, download=False)
    loaded = Workspace.load(str(workspace))
    (tracker,) = loaded.registry.resolve("FERMT", storage=loaded.storage.substorage("results"), skip_unknown=False)
    for experiment in loaded.stack:
        run_experiment(experiment, tracker, loaded.dataset)
    results = workspace / "results" / "FERMT" / "baseline" / "noise"
    found = read_trajectory(str(results / "noise_001.bin"))[1:]  # the first says that the tracker was initialized
    boxes = [(region.x, region.y, region.width, region.height) for region in found]
    np.testing.assert_allclose(boxes, [track.box for track in tracks()], atol=1e-3)
    scores = [float(line) for line in (results / "noise_001_confidence.value").read_text().split()[-len(found) :]]
    np.testing.assert_allclose(scores, [track.score for track in tracks()], atol=1e-6)
