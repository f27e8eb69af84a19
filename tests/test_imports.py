"""The house: imports point one way, and the public packages keep to what is theirs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room of fermt_kernels and the rooms it may import; what is not listed may import nothing of the package.
ARROWS = {
    "__init__": {"flops", "frame", "modules", "patterns", "reference", "backends", "ops", "swap"},
    "swap": {"modules", "ops", "backends", "checks"},
    "modules": {"ops", "backends", "checks"},
    "flops": {"ops", "patterns"},
    "frame": {"ops", "backends", "cpp", "triton", "checks", "patterns", "files"},
    "ops": {"backends", "reference", "patterns", "checks"},
    "backends": {"reference", "cpp", "triton", "patterns", "checks"},
    "reference": {"patterns", "checks"},
    "cpp": {"patterns", "checks", "layouts"},
    "triton": {"patterns", "checks", "layouts"},
    "checks": {"patterns"},
    "patterns": set(),
    "layouts": set(),
    "files": set(),
}
ALLOWED_THIRD_PARTY = {"fermt_kernels": {"torch", "triton"}}
PUBLIC_TO_FERMT = {
    "fermt_kernels",
    *(f"fermt_kernels.{name}" for name in ("files", "flops", "frame", "modules", "patterns")),
}


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


@pytest.mark.parametrize("file", files("fermt_kernels"), ids=lambda file: str(file.relative_to(ROOT)))
def test_arrows(file: Path) -> None:
    room = file.relative_to(ROOT / "fermt_kernels").with_suffix("").parts[0]
    met = {name.split(".")[1] for name in imported(file) if name.startswith("fermt_kernels.")} - {room}
    assert met <= ARROWS.get(room, set()), f"{room} may not import {sorted(met - ARROWS.get(room, set()))}"


def test_the_arrows_have_no_cycle() -> None:
    seen: set[str] = set()
    remaining = dict(ARROWS)
    while remaining:
        ready = [room for room, needs in remaining.items() if needs <= seen]
        assert ready, f"a cycle among {sorted(remaining)}"
        seen |= set(ready)
        remaining = {room: needs for room, needs in remaining.items() if room not in ready}


@pytest.mark.parametrize("file", files("fermt_kernels"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_kernels_need_only_torch(file: Path) -> None:
    import sys

    outside = {name.split(".")[0] for name in imported(file)} - set(sys.stdlib_module_names) - {"fermt_kernels"}
    assert outside <= ALLOWED_THIRD_PARTY["fermt_kernels"]


@pytest.mark.parametrize("file", files("fermt"), ids=lambda file: str(file.relative_to(ROOT)))
def test_fermt_uses_public_names_only(file: Path) -> None:
    met = {name for name in imported(file) if name.split(".")[0] == "fermt_kernels"}
    assert met <= PUBLIC_TO_FERMT


def test_the_library_knows_nothing_of_python_or_torch() -> None:
    for file in sorted((ROOT / "csrc").rglob("*.*")):
        text = file.read_text()
        assert "#include <torch" not in text, file
        assert "Python.h" not in text, file


def test_no_environment_variables_beyond_the_documented_ones() -> None:
    import re

    documented = {"FERMT_BACKEND", "FERMT_ISA", "FERMT_KERNELS_NO_CPP", "FERMT_ROOTS"}
    for package in ("fermt_kernels", "fermt", "benchmarks"):
        for file in files(package):
            text = file.read_text()
            assert set(re.findall(r"[\"'](FERMT_[A-Z_]+)[\"']", text)) <= documented, file
