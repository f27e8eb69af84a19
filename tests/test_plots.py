"""Plots: what is drawn, in which order, that the same reports give the same file, and that nothing else needs them."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fermt.evaluation.plots import COLORS, CURVES, DASHES, INSTALL_HINT, SUFFIXES, plot
from fermt.evaluation.scores import Report

from .support.errors import refused
from .support.scoring import BOXES, TRUTH, Listed, score, sequence

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib", reason="the extra [eval] is not installed")


@pytest.fixture
def reports(tmp_path: Path) -> list[Report]:
    """A tracker that misses, one that is right, and one between."""
    benchmark = Listed("lasot", [sequence("one")])
    found = {"worst_$a_1$": TRUTH + np.array((500, 500, 0, 0)), "best": TRUTH, "middle": BOXES}
    return [score(tmp_path / name, benchmark, boxes, tracker=name) for name, boxes in found.items()]


def texts_of(path: Path) -> list[str]:
    """The text of an SVG, in order."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_reports_give_the_same_file(
    matplotlib: Any, reports: list[Report], tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / f"first{suffix}", tmp_path / f"again{suffix}"
    plot(reports, "success", first)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # what Matplotlib dates files by, if it does
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)  # somebody's own settings
    plot(reports, "success", again)
    assert first.read_bytes().startswith(SIGNATURES[suffix])
    assert first.read_bytes() == again.read_bytes()
    assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(("curve", "name"), [("success", "AUC"), ("precision", "P"), ("norm_precision", "Pn")])
def test_the_legend_has_scores_the_best_first(
    matplotlib: Any, reports: list[Report], tmp_path: Path, curve: str, name: str
) -> None:
    plot(reports, curve, tmp_path / "curve.svg")
    texts = texts_of(tmp_path / "curve.svg")
    legend = [text for text in texts if text.startswith("[")]
    worst, best, middle = (f"[{report.scores[name].value:.2f}] {report.tracker}" for report in reports)
    assert legend == [best, middle, worst]
    assert "protocol pytracking" in texts
    assert f"{CURVES[curve].title}, {reports[0].benchmark}" in texts


def test_a_curve_is_where_its_values_are(matplotlib: Any, reports: list[Report], tmp_path: Path) -> None:
    """The best tracker is right in every frame, the worst in the first one alone, which is given: 1 and 1/5."""
    plot(reports, "precision", tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    heights = {}
    for color in COLORS[:3]:
        path = re.search(rf'<path d="([^"]*)"[^>]*style="[^"]*stroke: {color}', text)
        assert path, color
        heights[color] = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path[1])]
    best, middle, worst = heights.values()
    assert max(best) == min(best) < min(worst) == max(worst)
    values = reports[2].curves["precision"].values / 100
    expected = best[0] + (1 - values) / (1 - 1 / 5) * (worst[0] - best[0])
    assert {round(y, 2) for y in middle} == {round(y, 2) for y in expected}


def test_lines_differ_in_gray_too(matplotlib: Any, reports: list[Report], tmp_path: Path) -> None:
    many = [dataclasses.replace(reports[i % 3], tracker=str(i)) for i in range(len(COLORS) * len(DASHES))]
    plot(many, "success", tmp_path / "many.svg")
    styles = re.findall(r'style="fill: none; ([^"]*)stroke-width: 1.8', (tmp_path / "many.svg").read_text())
    assert len(styles) == 2 * len(many), "a line and its sample in the legend each"
    assert len(set(styles)) == len(many), "no two trackers look alike"


def test_what_cannot_be_drawn_is_refused(reports: list[Report], tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    other = dataclasses.replace(reports[0], protocol="lasot-official")
    elsewhere = dataclasses.replace(reports[0], benchmark="NFS")
    bare = dataclasses.replace(reports[0], curves={"success": reports[0].curves["success"]})
    for given, curve, path, *values in (
        (reports, "recall", out, "'recall'", "success, precision, norm_precision"),
        (reports, "success", tmp_path / "curve.bmp", ".png, .svg, .pdf", tmp_path / "curve.bmp"),
        ([], "success", out, "report"),
        ([reports[0], other], "success", out, "protocol", "lasot-official", "pytracking"),
        ([reports[0], elsewhere], "success", out, "benchmark", "NFS"),
        ([bare], "precision", out, "'pytracking'", "'precision'", "success"),
    ):
        with refused(ValueError, *values):
            plot(given, curve, path)
        assert not path.exists()


def test_a_file_that_cannot_be_written_leaves_nothing(
    matplotlib: Any, reports: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "curve.png"
    out.write_bytes(b"before")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        plot(reports, "success", out)
    assert out.read_bytes() == b"before"
    assert not list(tmp_path.glob(".*"))


def test_without_matplotlib_the_extra_is_named(
    reports: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with refused(ImportError, INSTALL_HINT):
        plot(reports, "success", tmp_path / "curve.png")


def test_drawing_touches_no_display_and_no_global_state(
    matplotlib: Any, fresh_python: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "curve.png"
    code = f"""
import sys
from types import SimpleNamespace
import numpy as np
from fermt.evaluation.plots import plot
from fermt.evaluation.scores import Curve, Score
curve, score = Curve(np.linspace(0, 1, 101), np.linspace(1, 0, 101)), Score(0.5, None, None)
facts = dict(tracker="t", benchmark="b", protocol="p", unit=1.0, digits=3)
plot([SimpleNamespace(**facts, scores={{"AO": score}}, curves={{"success": curve}})], "success", {str(out)!r})
print("matplotlib.pyplot" in sys.modules)
"""
    assert fresh_python(code, MPLBACKEND="tkagg", DISPLAY="").strip() == "False"
    assert out.read_bytes().startswith(SIGNATURES[".png"])


def test_evaluation_imports_no_plotting(fresh_python: Callable[..., str]) -> None:
    code = """
import importlib, pkgutil, sys
import fermt.cli, fermt.evaluation
for module in pkgutil.walk_packages(fermt.evaluation.__path__, "fermt.evaluation."):
    importlib.import_module(module.name)
print("fermt.evaluation.plots" in sys.modules, "fermt.evaluation.scores" in sys.modules, "matplotlib" in sys.modules)
"""
    assert fresh_python(code).split() == ["True", "True", "False"]
