"""The build's own choice of a C++ compiler (csrc/toolchain.py), for tests that compile something."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence

import pytest

from ..conftest import ROOT


def compiler() -> Sequence[str]:
    """The command of the C++ compiler that a build would use; the test is skipped if there is none."""
    spec = importlib.util.spec_from_file_location("toolchain", ROOT / "csrc" / "toolchain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.find_compiler().command
    except module.BuildError as error:
        pytest.skip(str(error))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its output is in the result."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
