"""Whole-frame inference: a packed model tracks a frame in one call, with each target's template encoded once.

On the CPU the call runs in the compiled library, on a GPU as a CUDA graph of Triton kernels.

packed = fk.frame.pack(model)                            # or fk.frame.load(path)
cache = fk.frame.encode_template(packed, template_crop)  # (S, S, 3) uint8 RGB
maps = fk.frame.track_frame(packed, cache, search_crop)  # the head's maps, float32
boxes = fk.frame.track_image(packed, cache, image, squares)  # (B, 5): boxes in the squares of an image, and scores
"""

from ..spec.normalization import MEAN, STD
from .calibrate import MapError, accuracy
from .crop import crop
from .cuda_model import CudaPackedModel
from .decode import decode
from .native import native
from .pack import pack
from .packed import PackedModel, load
from .peak import peak_flops
from .run import encode_template, track_frame, track_image, unavailable_reason
from .workspace import Workspace

__all__ = [
    "MEAN",
    "STD",
    "CudaPackedModel",
    "MapError",
    "PackedModel",
    "Workspace",
    "accuracy",
    "crop",
    "decode",
    "encode_template",
    "load",
    "native",
    "pack",
    "peak_flops",
    "track_frame",
    "track_image",
    "unavailable_reason",
]
