"""FERMT, a light-weight visual tracker (ECCV 2024), on the kernels of `fermt_kernels`.

import fermt
model = fermt.load("free-images")           # weights of the package; or a file of yours
tracker = fermt.Tracker(model)
tracker.init(first_frame_rgb, (x, y, w, h))
box, score, lost = tracker.update(next_frame_rgb)
"""

from fermt_kernels import __version__

from . import adapters
from .checkpoints import build_model, load, load_pretrained, load_state_dict, save
from .config import CONFIGS, ModelConfig
from .export import export_onnx, export_onnx_pair, export_pt2
from .flops import count_flops
from .model import FERMT
from .tracking import MultiTracker, Track, Tracker

__all__ = [
    "CONFIGS",
    "FERMT",
    "ModelConfig",
    "MultiTracker",
    "Track",
    "Tracker",
    "__version__",
    "adapters",
    "build_model",
    "count_flops",
    "export_onnx",
    "export_onnx_pair",
    "export_pt2",
    "load",
    "load_pretrained",
    "load_state_dict",
    "save",
]
