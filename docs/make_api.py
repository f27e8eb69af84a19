"""Writes docs/api.md from the docstrings of everything public: python docs/make_api.py"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fermt
import fermt_kernels as fk
from fermt import data, evaluation, tracking
from fermt_kernels import testing

PAGE = Path(__file__).with_name("api.md")
MODULES = ("DualAttentionUnit", "TemplateSearchAttention", "Linear", "PatchEmbed")
KERNELS = (
    *("attention", "attention_packed", "mixed_attention", "cross_attention", "dual_attention_unit", "DAUWeights"),
    "linear",
)
EVALUATION = ("open_benchmark", "TestSequence", "evaluate", "Report", "Result", "read_result", "write_result")
# Heading, what is said under it, how a user reaches it, where it is, and its names.
SECTIONS: tuple[tuple[str, str, str, Any, tuple[str, ...]], ...] = (
    ("Tracking", "`import fermt`", "fermt", fermt, ("Tracker", "MultiTracker", "Track")),
    ("Options of trackers", "Given to `Tracker` and `MultiTracker` by name.", "fermt.tracking", tracking, ("Options",)),
    (
        "Adapters",
        "The README has those that need a toolkit: `fermt.adapters.got10k.Tracker` and `python -m fermt.adapters.vot`.",
        "fermt.adapters",
        fermt.adapters,
        ("build.tracker_for", "opencv.Tracker", "pytracking.Tracker"),
    ),
    (
        "Model and weights",
        "A model is an `nn.Module` under the authors' keys.",
        "fermt",
        fermt,
        ("build_model", "FERMT.forward", "ModelConfig", "load", "save", "load_state_dict", "load_pretrained"),
    ),
    ("Elsewhere", "Also `fermt export`.", "fermt", fermt, ("export_onnx", "export_onnx_pair", "export_pt2")),
    ("What it costs", "Also `python -m benchmarks.flops`.", "fermt", fermt, ("count_flops",)),
    (
        "Evaluation",
        "Also `fermt eval`; the protocols are on [a page of their own](evaluation.md).",
        "fermt.evaluation",
        evaluation,
        EVALUATION,
    ),
    ("Crops", "What the model sees.", "fermt.data", data, ("crop_target", "target_square", "normalize")),
    (
        "Kernels",
        "`import fermt_kernels as fk`",
        "fk",
        fk,
        KERNELS,
    ),
    ("Modules", "In place of a block's own.", "fk.modules", fk.modules, MODULES),
    ("Other people's models", "", "fk", fk, ("swap", "backends")),
    (
        "Whole frames",
        "Inference in one call: on the CPU of the compiled library, on a GPU of a CUDA graph.",
        "fk.frame",
        fk.frame,
        tuple(name for name in fk.frame.__all__ if callable(getattr(fk.frame, name)) and name != "MapError"),
    ),
    (
        "Testing",
        "For tests of your own, and imported by name; the rule is on [a page of its own](accuracy.md).",
        "fermt_kernels.testing",
        testing,
        tuple(name for name in testing.__all__ if callable(getattr(testing, name))),
    ),
)


def entries() -> Iterator[tuple[str, str, Any]]:
    """(section, name as a user writes it, object)."""
    for section, _, prefix, where, names in SECTIONS:
        for name in names:
            found = where
            for part in name.split("."):
                found = getattr(found, part)
            yield section, f"{prefix}.{name}", found


class _Verbatim:
    """An annotation that is printed as the source has it, without quotes."""

    def __init__(self, annotation: object) -> None:
        self._text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self._text


def _signature(name: str, found: Any) -> str:
    if isinstance(found, type) and hasattr(found, "_fields"):
        return f"{name}({', '.join(found._fields)})"
    signature = inspect.signature(found)
    parameters = [
        parameter.replace(annotation=_Verbatim(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    returned = signature.return_annotation
    bare = returned in ("None", None, inspect.Signature.empty)
    result = inspect.Signature.empty if bare else _Verbatim(returned)
    return name + str(inspect.Signature(parameters, return_annotation=result))


def _methods(found: Any) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class of ours, in the order of the source."""
    if not isinstance(found, type) or hasattr(found, "_fields") or found.__module__.startswith("fermt_kernels.modules"):
        return
    for name, value in vars(found).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, value


def _block(name: str, found: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    lines = [_signature(name, found), "", *inspect.cleandoc(found.__doc__ or "").splitlines()]
    for method, value in _methods(found):
        head = f".{method}" if isinstance(value, property) else _signature(f".{method}", value)
        doc = inspect.cleandoc((value.fget if isinstance(value, property) else value).__doc__ or "").splitlines()
        lines += ["", head, *(f"    {line}".rstrip() for line in doc)]
    yield "```text\n" + "\n".join(lines) + "\n```\n"


def page() -> str:
    """The page's text."""
    parts = ["# API\n\nWritten by `python docs/make_api.py` from the docstrings. The README has the short way in.\n"]
    done: list[str] = []
    said: dict[str, tuple[str, ModuleType]] = {section: (text, where) for section, text, _, where, _ in SECTIONS}
    for section, name, found in entries():
        if section not in done:
            done.append(section)
            parts.append(f"## {section}\n" + (f"\n{said[section][0]}\n" if said[section][0] else ""))
        parts += _block(name, found)
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
