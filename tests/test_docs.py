"""The documents: the API page is that of the docstrings, every public name is on it, and the README's names exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import fermt
import fermt_kernels as fk

ROOT = Path(__file__).parents[1]
# Named on the page under another heading, or no more than a number or a module.
APART = {
    "__version__",
    "CONFIGS",
    "FERMT",
    "PATTERNS",
    "adapters",
    "flops",
    "frame",
    "modules",
    "patterns",
    "reference",
    "spec",
}
CONSTANTS = {"MEAN", "STD", "MapError"}
BY_NAME = ("got10k", "vot")  # adapters that are imported by name, where their toolkits are


def test_the_api_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))
    assert (ROOT / "docs" / "api.md").read_text() == made["page"](), "run: python docs/make_api.py"


def test_every_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    headings = set(re.findall(r"^### `([\w.]+)`$", page, re.MULTILINE))
    for package, prefix, apart in ((fermt, "fermt", APART), (fk, "fk", APART), (fk.frame, "fk.frame", CONSTANTS)):
        missing = {name for name in package.__all__ if f"{prefix}.{name}" not in headings} - apart
        assert not missing, f"docs/make_api.py leaves out {missing}"


@pytest.mark.parametrize(
    "document", ["README.md", "docs/architecture.md", "docs/gpu.md", "docs/evaluation.md", "examples/README.md"]
)
def test_names_in_a_document_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    names = set(re.findall(r"\b((?:fk|fermt)(?:\.[A-Za-z_]\w*)+)", text))
    endings = ("safetensors", "onnx", "fermt", "h", "template", "frame", "pt2", "mp4")  # of files
    for name in names:
        first, *parts = name.split(".")
        if first == "fermt" and parts[0] in endings:
            continue
        found = {"fk": fk, "fermt": fermt}[first]
        for part in parts:
            if name.startswith("fermt.adapters.") and part in BY_NAME:
                break
            assert hasattr(found, part), f"{document} names {name}, and there is no {part}"
            found = getattr(found, part)


def test_files_that_a_document_links_to_are_there() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
