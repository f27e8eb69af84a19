"""Trackers that `benchmarks.accuracy` measures: the model in each of its forms, and other people's trackers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.data import crop_target
from fermt.evaluation.record import digest
from fermt.export import ExportError, export_onnx
from fermt.tracking.images import Image
from fermt.tracking.network import ModuleNetwork, Network, hann_window, network_for
from fermt.tracking.target import Options, Target, advance
from fermt.weights import located

from .accuracy_data import find_sequences, labeled
from .harness import ROOT
from .peers import PeerMissingError, onnxruntime_session

EXAMPLES = ROOT / "examples"  # whose labeled clips int8 is calibrated on
CSRT_CREATE = ("TrackerCSRT_create", "legacy.TrackerCSRT_create")  # where OpenCV's versions have it
CSRT_INSTALL = "pip uninstall opencv-python-headless, then pip install opencv-contrib-python-headless"
NANO_FILES = ("nanotrack_backbone_sim.onnx", "nanotrack_head_sim.onnx")
NANO_SOURCE = "github.com/HonglinChu/SiamTrackers, NanoTrack/models/nanotrackv2"


class Follower(Protocol):
    """Follows one target at a time."""

    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        """Takes the target (xywh) in the first frame, (H, W, 3) uint8 RGB."""

    def update(self, image: np.ndarray) -> Sequence[float]:
        """Its box (xywh) in the next frame."""


class NetworkFollower:
    """FERMT, whatever runs it, with the defaults of `fermt.Tracker`."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._target: Target | None = None

    @torch.inference_mode()
    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        self._target = Target(self._network, Options(), image, box)

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> Sequence[float]:
        assert self._target is not None
        return advance(self._network, [self._target], [image])[0].box


class OpenCVFollower:
    """A tracker of OpenCV, made anew for each target. Where it says that it failed, the last box stays."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create
        create()  # so that what is missing shows before anything is tracked
        self._tracker: Any = None
        self._box: Sequence[float] = ()

    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        self._tracker, self._box = self._create(), tuple(box)
        self._tracker.init(_bgr(image), tuple(round(value) for value in box))  # OpenCV takes whole pixels

    def update(self, image: np.ndarray) -> Sequence[float]:
        found, box = self._tracker.update(_bgr(image))
        if found:
            self._box = tuple(map(float, box))
        return self._box


def _bgr(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


class OnnxNetwork:
    """The exported model in ONNX Runtime; a template's crop is kept as it is, and encoded in every frame."""

    def __init__(self, model: fermt.FERMT) -> None:
        config = model.config
        self.device = torch.device("cpu")
        self._window = hann_window(config.search_grid).float()
        self.template_size, self.search_size = config.template_size, config.search_size
        self.template_factor, self.search_factor = config.template_factor, config.search_factor
        with TemporaryDirectory() as folder:
            file = Path(folder) / "fermt.onnx"
            try:
                export_onnx(model, file, uint8=True)
            except ExportError as error:
                raise PeerMissingError(str(error)) from error
            self._session = onnxruntime_session(file, torch.get_num_threads())
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def encode(self, template: Image) -> Tensor:
        return torch.from_numpy(np.asarray(template))

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: Image) -> Tensor:
        templates = np.stack([template.numpy() for (template,) in encoded])
        images = {"template": templates, "search": np.asarray(searches)}
        # An input that the graph does not read is not in it.
        values = self._session.run(self._outputs, {name: images[name] for name in self._inputs})
        maps = {name: torch.from_numpy(value) for name, value in zip(self._outputs, values, strict=True)}
        return fk.frame.decode(maps, self._window)


def calibration(config: fermt.ModelConfig) -> tuple[Tensor, Tensor]:
    """Templates and search regions, uint8 (N, S, S, 3), of the labeled frames of the example clips."""
    templates, searches = [], []
    for sequence in find_sequences(EXAMPLES):
        frames = list(labeled(sequence))
        template = crop_target(*frames[0], config.template_factor, config.template_size).image
        for image, box in frames[1:]:
            templates.append(template)
            searches.append(crop_target(image, box, config.search_factor, config.search_size).image)
    return torch.from_numpy(np.stack(templates)), torch.from_numpy(np.stack(searches))


def _packed(dtype: torch.dtype, model: fermt.FERMT) -> Network:
    if reason := fk.frame.unavailable_reason(dtype):
        raise PeerMissingError(reason)
    crops = calibration(model.config) if dtype == torch.int8 else None
    return network_for(fk.frame.pack(model, dtype, calibration=crops), None)


# Forms of a model by name; each raises PeerMissingError where something that it needs is not installed.
FORMS: dict[str, Callable[[fermt.FERMT], Network]] = {
    "float32": partial(_packed, torch.float32),
    "bfloat16": partial(_packed, torch.bfloat16),
    "int8": partial(_packed, torch.int8),
    "onnx": OnnxNetwork,
    "model": ModuleNetwork,
}


def _csrt(nano: Path | None) -> Follower:
    for name in CSRT_CREATE:
        found: Any = cv2
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return OpenCVFollower(found)
    raise PeerMissingError(f"OpenCV {cv2.__version__} is built without it: {CSRT_INSTALL}")


def _nano(folder: Path | None) -> Follower:
    if not hasattr(cv2, "TrackerNano_create"):
        raise PeerMissingError(f"OpenCV {cv2.__version__} is built without it: pip install -U opencv-python-headless")
    if folder is None:
        raise PeerMissingError(f"give --nano FOLDER with {' and '.join(NANO_FILES)} ({NANO_SOURCE})")
    if missing := [name for name in NANO_FILES if not (folder / name).is_file()]:
        raise PeerMissingError(f"no {' and '.join(missing)} in {str(folder)!r} ({NANO_SOURCE})")
    parameters: Any = cv2.TrackerNano_Params()  # type: ignore[attr-defined]
    parameters.backbone, parameters.neckhead = (str(folder / name) for name in NANO_FILES)
    return OpenCVFollower(partial(cv2.TrackerNano_create, parameters))


# Other people's trackers by name: (the folder of NanoTrack's files) -> a follower; PeerMissingError as above.
PEERS: dict[str, Callable[[Path | None], Follower]] = {"csrt": _csrt, "nano": _nano}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tracker that takes part."""

    name: str
    follower: Follower
    facts: Mapping[str, Any]  # what it is, for the record


def entries(
    weights: Sequence[Path],
    forms: Sequence[str],
    untrained: bool,
    peers: Sequence[str],
    nano: Path | None,
    console: Console,
) -> list[Entry]:
    """The trackers that take part; those that need something that is not installed are named and left out.

    Raises:
        OSError, ValueError: weights that cannot be read.
    """
    models = {name: fermt.load(path) for name, path in _names(weights).items()}
    files = dict(zip(models, weights, strict=True))
    requested = [(f"{name}, {form}", name, form) for name in models for form in forms]
    if untrained:
        torch.manual_seed(0)
        config = next(iter(models.values())).config if models else fermt.CONFIGS["fermt"]
        models["untrained"] = fermt.build_model(config).eval()
        requested.append((f"untrained, {forms[0]}", "untrained", forms[0]))
    found = []

    def add(name: str, build: Callable[[], Follower], **facts: Any) -> None:
        try:
            found.append(Entry(name, build(), facts))
        except PeerMissingError as reason:
            console.print(
                f"{name}: left out, {reason}", style="bold yellow", highlight=False, markup=False, soft_wrap=True
            )

    for name, model, form in requested:
        console.print(f"preparing {name}", highlight=False, markup=False)
        file = files.get(model)
        facts = {"weights": file.name, "sha256": digest(located(file))} if file else {"weights": None}
        add(name, partial(_form, models[model], form), form=form, **facts)
    for name in peers:
        add(name, partial(PEERS[name], nano), peer=name)
    return found


def _form(model: fermt.FERMT, form: str) -> Follower:
    return NetworkFollower(FORMS[form](model))


def _names(weights: Sequence[Path]) -> dict[str, Path]:
    """Files by their stems, or by their whole paths where two have one stem."""
    stems = [path.stem for path in weights]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in weights}
