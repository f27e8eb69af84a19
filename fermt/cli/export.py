"""`fermt export`: writes a model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fermt_kernels.frame import PackedModel

from ..export import Report, export_onnx, export_onnx_pair, export_pt2
from ..export.files import pair_of
from .common import Config, check_inputs_kept, check_output, console, failed, load_model, say

EXPORTS = {".onnx": export_onnx, ".pt2": export_pt2}


def export(
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights written by fermt.save or `fermt convert`; default: free-images, which come with the package."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write: .onnx, or .pt2 for torch.export.load.")] = Path(
        "fermt.onnx"
    ),
    split: Annotated[
        bool,
        typer.Option(
            "--split", help="Write two graphs, NAME.template.onnx to run once per target, and NAME.frame.onnx."
        ),
    ] = False,
    uint8: Annotated[
        bool,
        typer.Option(
            "--uint8", help="Make graphs that take uint8 RGB crops, (B, S, S, 3), instead of normalized float32."
        ),
    ] = False,
    config: Config = "fermt",
) -> None:
    """Export a model for ONNX Runtime, OpenVINO and similar runtimes, or for PyTorch without this package.

    The exported graph is float32, takes any batch size, and is checked against the model before the file is kept. Its
    metadata says how to cut and normalize crops.
    """
    check_output(out, tuple(EXPORTS))
    outputs = {f"{file.name} of --out": file for file in pair_of(out)} if split else {"--out": out}
    check_inputs_kept(outputs, {"--weights": weights})
    suffix = out.suffix.lower()
    if split and suffix != ".onnx":
        raise typer.BadParameter(
            f"--split writes two ONNX graphs: expected a name that ends in .onnx, got {str(out)!r}"
        )
    try:
        model = load_model(weights, config, "auto", "cpu")
        if isinstance(model, PackedModel):
            raise ValueError(f"{weights} is a packed model; expected the weights that it was packed from")
        with console.status("exporting, and checking the file"):
            report = (export_onnx_pair if split else EXPORTS[suffix])(model, out, uint8=uint8)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    _summarize(report, split)


def _summarize(report: Report, split: bool) -> None:
    lines = [f"{file}  {file.stat().st_size / 1e6:.1f} MB" for file in report.files]
    if split and len(report.files) == 1:
        lines.append("No template graph: the search region of this configuration never sees the template.")
    lines += [
        f"checked with {check.runtime}: at most {check.largest:.1e} off the model in float64 "
        f"(the model in float32: {check.eager:.1e})"
        for check in report.checks
    ]
    for line in lines:
        say(line)
    if report.unchecked:
        say(f"Not checked: {report.unchecked}", "bold yellow")
