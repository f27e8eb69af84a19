"""Plots success, precision and normalized precision curves of trackers. Needs Matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fermt_kernels.files import atomic_write

from ..marks import SOFTWARE
from .report import check_comparable
from .scores import Report

SUFFIXES = (".png", ".svg", ".pdf")
INSTALL_HINT = "plots need Matplotlib: pip install 'fermt-kernels[eval]'"
# Okabe and Ito's palette for color-blind readers, without yellow; dashes distinguish the lines in gray.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
RC: Any = {
    "font.size": 10,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "fermt",
    "text.parse_math": False,
    "text.usetex": False,
}
# Without the time, so that files are reproducible, and with our mark.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": SOFTWARE},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


class Style(NamedTuple):
    """Labels of a plot."""

    title: str
    x_label: str
    y_label: str
    scores: tuple[str, ...]  # the first of these that a report has is in the legend


CURVES = {
    "success": Style("Success", "overlap threshold", "success rate", ("AO", "AUC")),
    "precision": Style("Precision", "center error threshold, pixels", "precision", ("P",)),
    "norm_precision": Style("Normalized precision", "normalized center error threshold", "precision", ("Pn",)),
}


def plot(reports: Sequence[Report], curve: str, path: str | os.PathLike[str]) -> None:
    """Plots one curve of each report, in the order of their scores.

    The same reports give the same file, byte for byte, with the same version of Matplotlib.

    Args:
        reports: on one benchmark, by one protocol; at least one.
        curve: "success", "precision" or "norm_precision".
        path: a .png, .svg or .pdf.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: an unknown curve or suffix, no reports, reports that cannot be compared or that lack the curve.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"expected a name that ends in {', '.join(SUFFIXES)}; got {str(path)!r}")
    style = _checked(reports, curve)
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(INSTALL_HINT) from error
    scored = sorted(((_score(report, style), report) for report in reports), key=lambda pair: pair[0], reverse=True)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for i, (score, report) in enumerate(scored):
            found = report.curves[curve]
            axes.plot(
                found.thresholds,
                np.asarray(found.values) / report.unit,
                color=COLORS[i % len(COLORS)],
                linestyle=DASHES[i % len(DASHES)],
                linewidth=1.8,
                label=f"[{score:.{report.digits}f}] {report.tracker}",
            )
        axes.set(
            xlabel=style.x_label, ylabel=style.y_label, ylim=(0, 1), title=f"{style.title}, {reports[0].benchmark}"
        )
        axes.set_xlim(0, max(float(report.curves[curve].thresholds[-1]) for report in reports))
        axes.grid(True, linewidth=0.4, color="#b0b0b0")
        title = f"protocol {reports[0].protocol}"
        figure.legend(loc="outside right upper", title=title, fontsize=8, title_fontsize=8, handlelength=3.5)
        atomic_write(target, lambda file: figure.savefig(file, metadata=METADATA[suffix]))


def _checked(reports: Sequence[Report], curve: str) -> Style:
    if curve not in CURVES:
        raise ValueError(f"unknown curve {curve!r}; expected one of {', '.join(CURVES)}")
    first = check_comparable(reports)
    if curve not in first.curves:
        raise ValueError(f"protocol {first.protocol!r} has no curve {curve!r}; it has {', '.join(first.curves)}")
    return CURVES[curve]


def _score(report: Report, style: Style) -> float:
    return float(next(report.scores[name] for name in style.scores if name in report.scores).value)
