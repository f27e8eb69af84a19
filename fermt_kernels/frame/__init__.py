"""A whole frame in one call: the model packed once, the template once for each target.

On the CPU it is a call of the compiled library, on a GPU a CUDA graph of few Triton kernels.

packed = fk.frame.pack(model)                            # or fk.frame.load(path)
cache = fk.frame.encode_template(packed, template_crop)  # (S, S, 3) uint8 RGB
maps = fk.frame.track_frame(packed, cache, search_crop)  # the head's maps, float32
"""

from .calibrate import MapError, accuracy
from .crop import crop
from .cuda_model import CudaPackedModel
from .decode import decode
from .format import MEAN, STD
from .native import native
from .pack import pack
from .packed import PackedModel, load
from .peak import peak_flops
from .run import encode_template, track_frame, unavailable_reason
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
    "unavailable_reason",
]
