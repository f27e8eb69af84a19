"""Tests in this folder need a GPU: `pytest -m gpu`. Triton's interpreter tries out the same checks elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests, and skips them where there is no GPU."""
    absent = pytest.mark.skip(reason="there is no CUDA GPU here")
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(absent)
