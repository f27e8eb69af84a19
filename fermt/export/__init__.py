"""Export to other runtimes: ONNX, as one graph or two, and torch.export's .pt2.

fermt.export_onnx(model, "fermt.onnx")       # (template, search) -> the head's maps
fermt.export_onnx_pair(model, "fermt.onnx")  # fermt.template.onnx once a target, fermt.frame.onnx once a frame
fermt.export_pt2(model, "fermt.pt2")         # for torch.export.load
"""

from .check import Check, ExportError
from .files import Report, export_onnx, export_onnx_pair, export_pt2
from .graphs import MAPS, FrameGraph, TemplateGraph, WholeGraph
from .plain import plain_model

__all__ = [
    "MAPS",
    "Check",
    "ExportError",
    "FrameGraph",
    "Report",
    "TemplateGraph",
    "WholeGraph",
    "export_onnx",
    "export_onnx_pair",
    "export_pt2",
    "plain_model",
]
