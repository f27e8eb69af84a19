"""The shared facts: the template schedule, held against the compiled library, and the heads against the model."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt_kernels.cpp import frame as compiled
from fermt_kernels.cpp import library
from fermt_kernels.spec.heads import HEADS
from fermt_kernels.spec.schedule import TemplateSchedule, Visibility

from .conftest import ROOT
from .support.packed import small_model
from .support.toolchain import compiler, run

# By hand, from Eq. 6: template sees template, template sees search, search sees template, search sees search.
VISIBLE = {
    "self": (True, False, False, True),
    "mixed": (True, False, True, True),
    "full": (True, True, True, True),
    "one_way_cross": (False, False, True, False),
    "cross": (False, True, True, False),
}


def test_visibility() -> None:
    assert {pattern: tuple(Visibility.of(pattern)) for pattern in fk.PATTERNS} == VISIBLE


@pytest.mark.parametrize(
    ("patterns", "reads", "first_dynamic", "last_template"),
    [
        (("mixed",) * 6 + ("cross",) * 6, False, 6, 11),
        (("mixed", "mixed"), False, 2, 1),
        (("mixed", "mixed"), True, 2, 2),
        (("self", "self"), False, 2, -1),
        (("full", "self"), False, 0, 0),
        (("self", "mixed", "cross", "self"), False, 2, 2),
    ],
)
def test_schedules(patterns: tuple[str, ...], reads: bool, first_dynamic: int, last_template: int) -> None:
    schedule = TemplateSchedule(patterns, reads)
    assert (schedule.first_dynamic_layer, schedule.last_template_layer) == (first_dynamic, last_template)
    assert [schedule.template_updated(i) for i in range(len(patterns))] == [
        i < last_template for i in range(len(patterns))
    ]


def stacks() -> list[tuple[tuple[str, ...], bool]]:
    """All stacks of one to three layers, with a head that reads the template and without."""
    patterns = [stack for depth in (1, 2, 3) for stack in itertools.product(fk.PATTERNS, repeat=depth)]
    return list(itertools.product(patterns, (False, True)))


@pytest.fixture(scope="module")
def library_schedules(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], list[list[str]]]:
    """What csrc/abi/packed_model.cpp, compiled by itself, makes of stacks of layers (tests/support/schedule.cpp)."""
    built = tmp_path_factory.mktemp("schedule") / "schedule"
    sources = (ROOT / "tests" / "support" / "schedule.cpp", ROOT / "csrc" / "abi" / "packed_model.cpp")
    finished = run(*compiler(), "-std=c++17", f"-I{ROOT / 'csrc'}", *sources, "-o", built)
    assert finished.returncode == 0, finished.stderr

    def schedules(lines: list[str]) -> list[list[str]]:
        found = subprocess.run(built, input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60)
        return [line.split() for line in found.stdout.splitlines()]

    return schedules


def test_the_library_has_the_same_schedules_and_heads(
    library_schedules: Callable[[list[str]], list[list[str]]],
) -> None:
    """All that it states itself: what is computed beyond need would be in no result, and only cost time."""
    cases = [(head, *stack) for head in HEADS.values() for stack in stacks()]
    lines, expected = [], []
    for head, patterns, reads in cases:
        seen = [Visibility.of(pattern) for pattern in patterns]
        bits = [sum(bit << place for place, bit in enumerate(layer)) for layer in seen]
        lines.append(" ".join(map(str, (head.code, int(reads), *bits))))
        schedule = TemplateSchedule(patterns, reads)
        asked = (schedule.template_updated, schedule.template_queries, schedule.template_keys, schedule.search_keys)
        layers = ["".join(str(int(answer(i))) for answer in asked) for i in range(len(patterns))]
        channels = [branch.channels for branch in head.branches]
        expected.append([str(schedule.first_dynamic_layer), *layers, *map(str, (head.map_channels, *channels))])
    assert library_schedules(lines) == expected


def test_the_librarys_caches_follow_the_schedule(loaded: library.Library) -> None:
    """A cache holds keys and values of the layers, up to the first dynamic one, whose template keys are read."""
    model = small_model("corner", patterns=("self",), reweight=False)

    def cache_bytes(patterns: tuple[str, ...], reweight: bool) -> int:
        blocks = [model.backbone.blocks[0].state_dict()] * len(patterns)
        state = {key: value for key, value in model.state_dict().items() if ".blocks." not in key}
        for i, block in enumerate(blocks):
            state |= {f"backbone.blocks.{i}.{key}": value for key, value in block.items()}
        config = SimpleNamespace(**vars(model.config) | {"patterns": patterns, "reweight": reweight})
        packed = fk.frame.pack(SimpleNamespace(config=config, state_dict=lambda: state))
        return compiled.frame_info(packed.blob, 1).cache_bytes

    def cached(patterns: tuple[str, ...], reweight: bool) -> int:
        schedule = TemplateSchedule(patterns, reweight)
        return sum(map(schedule.template_keys, range(min(schedule.first_dynamic_layer + 1, schedule.depth))))

    empty = cache_bytes(("self",), False)
    layer = cache_bytes(("mixed",), False) - empty
    assert layer > 0
    for patterns, reweight in stacks():
        assert cache_bytes(patterns, reweight) == empty + layer * cached(patterns, reweight), (patterns, reweight)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_the_models(name: str) -> None:
    model = small_model(name)
    head = HEADS[name]
    keys = [key for key in model.box_head.state_dict() if key.startswith("conv5_") and key.endswith("weight")]
    assert keys == [f"conv5_{branch.name}.weight" for branch in head.branches]
    tokens = torch.randn(1, model.config.num_template + model.config.num_search, model.config.dim)
    outputs = model.box_head(tokens)
    assert list(outputs) == list(head.outputs)
    if not head.softmax:
        assert {key: value.shape[1] for key, value in outputs.items()} == head.channels
    assert head.map_channels == sum(head.channels.values())
    assert tuple(HEADS) == fermt.config.HEADS


def test_first_channels() -> None:
    center = HEADS["center"]
    assert {branch.name: center.first_channel(branch) for branch in center.branches} == {
        "ctr": 0,
        "size": 1,
        "offset": 3,
    }


@pytest.mark.parametrize("name", HEADS)
def test_the_library_has_the_same_channels(name: str, loaded: library.Library) -> None:
    info = compiled.frame_info(fk.frame.pack(small_model(name)).blob, 1)
    assert (info.map_channels, info.head) == (HEADS[name].map_channels, HEADS[name].code)
