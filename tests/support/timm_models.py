"""timm's families of models with attention, and an import of timm where torchvision does not fit the torch at hand."""

from __future__ import annotations

import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SMALL = ("test_", "atto", "femto", "pico", "nano", "xxs", "xxt", "xs", "tiny", "mini", "_s", "small")


class _AnyName(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers `import torchvision...` with modules of empty classes; timm needs it for images only."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: getattr(_AnyName("torchvision", (), {}), name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def import_timm() -> Any:
    """timm; with a stand-in for torchvision if that is missing or was built for another torch."""
    try:
        import torchvision  # noqa: F401  (whether it works)
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Torchvision())
    import timm

    return timm


def create(name: str) -> Any:
    """An untrained model of that name; of two blocks, where its depth may be chosen, for more would show no more."""
    timm = import_timm()
    try:
        return timm.create_model(name, depth=2)
    except Exception:  # its depth is not one number, which each constructor says in its own way
        return timm.create_model(name)


def families() -> dict[str, str]:
    """Module of timm -> the name of one of its models, as small as names tell."""
    timm = import_timm()
    chosen = {}
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if names:
            chosen[module] = min(names, key=_size)
    return chosen


def _size(name: str) -> tuple[int, str]:
    """Sorts names of models by what they say of the size."""
    return next((i for i, word in enumerate(SMALL) if word in name), len(SMALL)), name
