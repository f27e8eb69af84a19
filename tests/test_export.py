"""`fermt export`: the graphs are the model, the files are the graphs, and what is not the model is not written."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import runpy
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import fermt
import fermt_kernels as fk
from fermt.cli import app
from fermt.data import normalize
from fermt.export import MAPS, ExportError, FrameGraph, Report, TemplateGraph, WholeGraph, check, files
from fermt.tracking.sources import open_source

from .conftest import ROOT
from .support.errors import lacking, refused
from .support.packed import SMALL, small_model

PLAYER = (372.0, 108.0, 125.0, 240.0)
CONFIGS = {
    **fermt.CONFIGS,
    "fermt, no DAU": dataclasses.replace(fermt.CONFIGS["fermt"], dau=False),
    **{
        f"{name}, reweight": dataclasses.replace(fermt.CONFIGS[name], head="corner", reweight=True)
        for name in ("fermt-corner", "a1", "a1a4", "a3a5")
    },
}
TINY = fermt.ModelConfig(patterns=("self",), **SMALL)
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def crops(config: fermt.ModelConfig, batch: int) -> tuple[Tensor, Tensor]:
    sizes = (config.template_size, config.search_size)
    return tuple(torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8) for size in sizes)  # type: ignore[return-value]


def images(pair: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(torch.cat([normalize(crop.numpy(), dtype=dtype) for crop in group]) for group in pair)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_graphs_are_the_model(name: str) -> None:
    config = dataclasses.replace(CONFIGS[name], **SMALL)
    model = fermt.build_model(config, backend="reference").double()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.05)
    model.eval()
    pair = crops(config, 2)
    template, search = images(pair, torch.float64)
    encode, frame, whole = TemplateGraph(model), FrameGraph(model), WholeGraph(model)
    assert frame.inputs == ("search", *encode.outputs)
    with torch.inference_mode():
        outputs = model(template, search)
        expected = {key: outputs[key] for key in MAPS[config.head]}
        assert tuple(model.box_head(outputs["tokens"])) == frame.outputs == whole.outputs == tuple(expected)
        results = {
            "split": frame(search, *encode(template)),
            "split, from crops": frame(pair[1], *encode(pair[0])),
            "whole": whole(template, search),
            "whole, from crops": whole(*pair),
        }
        cache = encode(template)
    assert len(cache) == len(encode.outputs)
    for way, maps in results.items():
        for key, value in zip(frame.outputs, maps, strict=True):
            torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-11, msg=lambda m, w=way: f"{w}: {m}")


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("fermt", [f"{part}_{i}" for i in range(6) for part in ("keys", "values")] + ["template_tokens"]),
        ("a2", [f"{part}_{i}" for i in range(12) for part in ("keys", "values")]),  # the template never sees the search
        ("a1a4", [f"{part}_{i}" for i in range(6, 12) for part in ("keys", "values")]),
        ("a3", ["template_tokens"]),  # it does from the first layer on
        ("a1", []),  # nobody reads the template
        ("a1, reweight", ["template_tokens"]),  # but the head does
    ],
)
def test_the_cache_is_what_depends_on_the_template_alone(name: str, cache: list[str]) -> None:
    model = fermt.build_model(dataclasses.replace(CONFIGS[name], **SMALL))
    assert list(TemplateGraph(model).outputs) == cache


def needs_onnx() -> None:
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is not installed (the export extra has it)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def models() -> dict[str, fermt.FERMT]:
    torch.manual_seed(0)
    return {head: small_model(head) for head in MAPS}


@pytest.fixture(scope="module")
def center(folder: Path, models: dict[str, fermt.FERMT]) -> Report:
    """The center model as a pair that takes crops."""
    needs_onnx()
    return fermt.export_onnx_pair(models["center"], folder / "center.onnx", uint8=True)


@pytest.fixture(scope="module")
def corner(folder: Path, models: dict[str, fermt.FERMT]) -> Report:
    """The corner model as a pair that takes normalized images."""
    needs_onnx()
    return fermt.export_onnx_pair(models["corner"], folder / "corner.onnx")


@pytest.fixture(scope="module")
def whole(folder: Path, models: dict[str, fermt.FERMT]) -> Report:
    """The center model as one graph that takes normalized images."""
    needs_onnx()
    return fermt.export_onnx(models["center"], folder / "whole.onnx")


def run_onnx(report: Report, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every graph in turn; each takes what it names of the images and of the results before it."""
    import onnxruntime

    for file in report.files:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        results = session.run(names, {value.name: values[value.name] for value in session.get_inputs()})
        values = values | dict(zip(names, results, strict=True))
    return values


def expected_maps(model: fermt.FERMT, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """By the model's own forward pass, in float64."""
    with torch.inference_mode():
        outputs = copy.deepcopy(model).double()(*images(pair, torch.float64))
    return {name: outputs[name] for name in MAPS[model.config.head]}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("name", "uint8"), [("center", True), ("corner", False), ("whole", False)])
def test_onnxruntime_gives_the_maps(
    name: str, uint8: bool, batch: int, models: dict[str, fermt.FERMT], request: pytest.FixtureRequest
) -> None:
    report, model = request.getfixturevalue(name), models.get(name, models["center"])
    pair = crops(model.config, batch)
    given = pair if uint8 else images(pair, torch.float32)
    results = run_onnx(report, {key: value.numpy() for key, value in zip(("template", "search"), given, strict=True)})
    for key, value in expected_maps(model, pair).items():
        np.testing.assert_allclose(results[key], value.numpy(), rtol=1e-4, atol=1e-5)


def test_the_report_says_what_checked_it(center: Report, corner: Report) -> None:
    assert [file.name for file in center.files] == ["center.template.onnx", "center.frame.onnx"]
    for report in (center, corner):
        assert report.checks[0].runtime.startswith("ONNX Runtime 1.")
        assert all(0 < result.largest < 1e-4 and 0 < result.eager < 1e-4 for result in report.checks)
        assert not report.unchecked


def test_standard_operators_and_metadata(
    center: Report, corner: Report, whole: Report, models: dict[str, fermt.FERMT]
) -> None:
    import onnx

    for report in (center, corner, whole):
        for file in report.files:
            proto = onnx.load(file)
            assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", files.OPSET)]
            assert proto.ir_version == 8  # what opset 18 needs; ONNX Runtime 1.17 refuses 10
            assert not any(part.metadata_props for part in (proto.graph, *proto.graph.node, *proto.graph.value_info))
            assert not proto.functions
            assert {node.domain for node in proto.graph.node} == {""}
            for value in (*proto.graph.input, *proto.graph.output):
                assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
            found = {entry.key: entry.value for entry in proto.metadata_props}
            assert json.loads(found["inputs"]) == [value.name for value in proto.graph.input]
            assert json.loads(found["outputs"]) == [value.name for value in proto.graph.output]
            config = models["corner" if report is corner else "center"].config
            assert fermt.ModelConfig.from_dict(json.loads(found["fermt_config"])) == config
            assert (found["template_size"], found["search_size"]) == ("16", "32")
            assert (found["template_factor"], found["search_factor"]) == ("2.0", "4.0")
            assert json.loads(found["mean"]) == list(fk.frame.MEAN)
            assert json.loads(found["deviation"]) == list(fk.frame.STD)
            assert found["images"].startswith("(B, S, S, 3) uint8" if report is center else "(B, 3, S, S) float32")
            assert (found["fermt_version"], found["opset"]) == (fermt.__version__, str(files.OPSET))
            assert str(ROOT).encode() not in file.read_bytes(), "a path of this machine"


def test_pt2_leaves_the_model_alone(tmp_path: Path) -> None:
    model = small_model("center").bfloat16().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / "model.pt2"
    report = fermt.export_pt2(model, path)
    assert report.files == (path,)
    assert [result.runtime.split()[0] for result in report.checks] == ["torch.export"]
    assert model.training
    assert model.backend == "auto"
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
    extra = {files.METADATA_FILE: ""}
    loaded = torch.export.load(path, extra_files=extra).module()
    assert json.loads(json.loads(extra[files.METADATA_FILE])["outputs"]) == list(MAPS["center"])
    single = WholeGraph(model).float()
    for batch in (1, 4):
        pair = images(crops(model.config, batch), torch.float32)
        with torch.inference_mode():
            for actual, expected in zip(loaded(*pair), single(*pair), strict=True):
                assert actual.dtype == torch.float32
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_the_model_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(WholeGraph):
        def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
            score, *others = super().forward(template, search)
            return score * 1.0001, *others

    path = tmp_path / "model.pt2"
    path.write_text("what was there before")
    monkeypatch.setattr(files, "WholeGraph", Wrong)
    with refused(ExportError, "score_map", "torch.export"):
        fermt.export_pt2(fermt.build_model(TINY), path)
    assert path.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_rule() -> None:
    exact = torch.rand(3, 4, 4, dtype=torch.float64)
    eager = exact.float() + 1e-6
    judge = check._judge
    assert judge("it", "map", exact + 7.9e-6, eager, exact)[0] == pytest.approx(7.9e-6)
    broken = eager.clone()
    broken[0, 0, 0] = torch.nan
    for wrong in (exact + 9e-6, broken):
        with refused(ExportError, "map", "it", f"{9e-6:.3g}" if torch.isfinite(wrong).all() else "nan"):
            judge("it", "map", wrong, eager, exact)
    with refused(ExportError, (3, 4), (3, 4, 4)):
        judge("it", "map", exact[:, 0], eager, exact)


def test_a_runtime_that_refuses_the_file(tmp_path: Path) -> None:
    runtime = {"torch.export": check.PT2_RUNTIMES["torch.export"]}
    with refused(ExportError, "torch.export"):
        check.check(small_model("center"), [(b"nonsense", MAPS["center"])], runtime, uint8=False)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
@pytest.mark.parametrize("export", [fermt.export_onnx, fermt.export_onnx_pair])
def test_missing_packages(export: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with refused(ExportError, package, "pip install 'fermt-kernels[export]'"):
        export(small_model("center"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("export", "name"), [(fermt.export_onnx, "a.pt2"), (fermt.export_pt2, "a.onnx")])
def test_endings(export: Any, name: str, tmp_path: Path) -> None:
    with refused(ValueError, name):
        export(small_model("center"), tmp_path / name)


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    path = folder / "small.safetensors"
    fermt.save(fermt.build_model(TINY), path)
    return path


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_command(weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.pt2"
    result = command("--weights", weights, "--out", out, "--uint8")
    assert result.exit_code == 0, result.output
    assert lacking(result.output, out, f"{out.stat().st_size / 1e6:.1f} MB") == []
    assert "checked with torch.export" in result.output
    assert "No weights" not in result.output
    assert capfd.readouterr() == ("", ""), "nothing else is said"


def test_command_without_a_runtime(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for package in NEEDED[:2]:
        pytest.importorskip(package, reason=f"{package} is not installed (the export extra has it)")
    for package in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    result = command("--weights", weights, "--out", tmp_path / "model.onnx", "--split")
    assert result.exit_code == 0, result.output
    assert [file.name for file in tmp_path.iterdir()] == ["model.frame.onnx"]
    assert "template graph" in result.output
    words = " ".join(result.output.split())
    assert lacking(words, "ONNX Runtime", "OpenVINO", "pip install 'fermt-kernels[export]'") == []
    assert capfd.readouterr() == ("", ""), "nothing else is said"


def test_command_says_what_is_wrong(weights: Path, tmp_path: Path) -> None:
    packed = tmp_path / "small.fermt"
    fk.frame.pack(small_model("center")).save(packed)
    wrong = {
        "expected a name that ends in .onnx or .pt2": ("--out", "model.tflite"),
        "--split writes two ONNX graphs": ("--out", "model.pt2", "--split"),
        "there is no folder": ("--out", tmp_path / "nowhere" / "model.onnx"),
        "no weights at": ("--weights", tmp_path / "nothing.safetensors"),
        "is a packed model": ("--weights", packed),
        "unknown configuration 'b7'": ("--config", "b7"),
    }
    for message, arguments in wrong.items():
        result = command(*arguments)
        assert result.exit_code in (1, 2), arguments
        assert message in " ".join(result.output.replace("│", " ").split()), arguments
        assert "Traceback" not in result.output
    assert not list(tmp_path.glob("model*"))


def test_the_example_needs_no_torch() -> None:
    tree = ast.parse((ROOT / "examples" / "onnx_track.py").read_text())
    met = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    met |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in met} - set(sys.stdlib_module_names) == {"cv2", "numpy", "onnxruntime"}


@pytest.mark.parametrize("head", ["center", "corner"])
def test_the_example_tracks_as_the_tracker_does(
    head: str, models: dict[str, fermt.FERMT], request: pytest.FixtureRequest
) -> None:
    pair = request.getfixturevalue(head).files[0].with_name(f"{head}.onnx")
    clip = ROOT / "examples" / "basketball.mp4"
    example = runpy.run_path(str(ROOT / "examples" / "onnx_track.py"))
    found = list(islice(example["track"](pair, str(clip), PLAYER), 11))
    tracker = fermt.Tracker(models[head])
    first, *others = islice(open_source(clip), 12)
    tracker.init(first, PLAYER)
    expected = [tracker.update(image) for image in others]
    np.testing.assert_allclose([values[:4] for values in found], [track.box for track in expected], atol=0.02)
    np.testing.assert_allclose([values[4] for values in found], [track.score for track in expected], atol=1e-4)
