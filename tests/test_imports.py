"""Imports point one way, and each package imports only what it may."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Each part of fermt_kernels and the parts it may import; what is not listed may import nothing of the package.
ARROWS = {
    "__init__": {"flops", "frame", "modules", "patterns", "reference", "backends", "ops", "spec", "swap", "version"},
    "version": set(),
    "testing": set(),
    "swap": {"swapping", "modules", "ops", "backends", "checks", "spec"},
    "swapping": {"testing", "modules", "ops", "children", "checks", "spec", "wrapped"},
    "modules": {"ops", "backends", "checks", "children", "spec"},
    "children": set(),
    "flops": {"ops", "spec"},
    "frame": {"ops", "backends", "cpp", "triton", "checks", "spec", "files", "locks", "modes", "wrapped"},
    "ops": {"backends", "reference", "checks", "spec", "torch_private"},
    "backends": {"reference", "cpp", "triton", "spec", "checks", "torch_private"},
    "reference": {"spec", "checks", "torch_private"},
    "cpp": {"spec", "checks", "layouts", "torch_private", "version"},
    "triton": {"spec", "checks", "layouts"},
    "checks": {"spec"},
    "patterns": {"spec"},
    "spec": set(),
    "layouts": set(),
    "files": set(),
    "wrapped": set(),
    "locks": set(),
    "modes": {"locks"},
    "torch_private": set(),
}
ALLOWED_THIRD_PARTY = {"torch", "triton"}
PUBLIC_TO_FERMT = {
    "fermt_kernels",
    *(
        f"fermt_kernels.{name}"
        for name in (
            "children",
            "files",
            "flops",
            "frame",
            "locks",
            "modes",
            "modules",
            "patterns",
            "reference",
            "spec",
            "wrapped",
        )
    ),
    *(f"fermt_kernels.spec.{file.stem}" for file in (ROOT / "fermt_kernels" / "spec").glob("[a-z]*.py")),
}


@cache
def imported(file: Path) -> set[str]:
    """Absolute names of the modules that a file imports, relative imports resolved."""
    package = list(file.relative_to(ROOT).with_suffix("").parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            if node.module:
                names.add(".".join((*base, node.module)))
            else:
                names |= {".".join((*base, alias.name)) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no sources under {package}"
    return found


def test_arrows() -> None:
    for file in files("fermt_kernels"):
        part = file.relative_to(ROOT / "fermt_kernels").with_suffix("").parts[0]
        met = {name.split(".")[1] for name in imported(file) if name.startswith("fermt_kernels.")} - {part}
        assert met <= ARROWS.get(part, set()), f"{file}: {part} may not import {sorted(met - ARROWS.get(part, set()))}"


def test_the_arrows_have_no_cycle() -> None:
    seen: set[str] = set()
    remaining = dict(ARROWS)
    while remaining:
        ready = [part for part, needs in remaining.items() if needs <= seen]
        assert ready, f"a cycle among {sorted(remaining)}"
        seen |= set(ready)
        remaining = {part: needs for part, needs in remaining.items() if part not in ready}


def test_the_kernels_need_only_torch() -> None:
    for file in files("fermt_kernels"):
        outside = {name.split(".")[0] for name in imported(file)} - set(sys.stdlib_module_names) - {"fermt_kernels"}
        assert outside <= ALLOWED_THIRD_PARTY, file


def test_fermt_uses_public_names_only() -> None:
    for file in files("fermt"):
        met = {name for name in imported(file) if name.split(".")[0] == "fermt_kernels"}
        assert met <= PUBLIC_TO_FERMT, file


def test_nothing_imports_tests() -> None:
    for file in (file for package in ("fermt_kernels", "fermt", "benchmarks") for file in files(package)):
        assert "tests" not in {name.split(".")[0] for name in imported(file)}, file


def test_the_library_knows_nothing_of_python_or_torch() -> None:
    for file in sorted((ROOT / "csrc").rglob("*.*")):
        text = file.read_text()
        assert "#include <torch" not in text, file
        assert "Python.h" not in text, file


def test_no_environment_variables_beyond_the_documented_ones() -> None:
    documented = {"FERMT_BACKEND", "FERMT_ISA", "FERMT_KERNELS_NO_CPP", "FERMT_ROOTS"}
    for package in ("fermt_kernels", "fermt", "benchmarks"):
        for file in files(package):
            text = file.read_text()
            assert set(re.findall(r"[\"'](FERMT_[A-Z_]+)[\"']", text)) <= documented, file


def test_private_torch_api_is_used_in_one_file() -> None:
    for file in files("fermt_kernels"):
        if file.name != "torch_private.py":
            assert not re.search(r"\btorch\._[A-Za-z]|_dynamo_", file.read_text()), file
