"""A whole frame in one call of the compiled library: the model packed once, the template once for each target.

packed = fk.frame.pack(model)                            # or fk.frame.load(path)
cache = fk.frame.encode_template(packed, template_crop)  # (S, S, 3) uint8 RGB
maps = fk.frame.track_frame(packed, cache, search_crop)  # the head's maps, float32
"""

from .calibrate import DEVIATION, MEAN, MapError, accuracy
from .native import native
from .pack import pack
from .packed import PackedModel, load
from .run import Workspace, encode_template, peak_flops, track_frame, why_not

__all__ = [
    "DEVIATION",
    "MEAN",
    "MapError",
    "PackedModel",
    "Workspace",
    "accuracy",
    "encode_template",
    "load",
    "native",
    "pack",
    "peak_flops",
    "track_frame",
    "why_not",
]
