"""The structs that Python packs, against the C header."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fermt_kernels.cpp import abi, library
from fermt_kernels.spec.dual_attention_unit import DAUWeights
from fermt_kernels.spec.heads import HEADS

ROOT = Path(__file__).parents[1]
(HEADER,) = (text for file in (ROOT / "csrc").rglob("*.h") if "#define FERMT_ABI_VERSION" in (text := file.read_text()))
CODE = re.sub(r"//[^\n]*", "", HEADER)
CONSTANTS = {name: int(value) for name, value in re.findall(r"\b(FERMT_[A-Z0-9_]+) = (\d+)", CODE)}
NESTED = {
    "fermt_tensor": abi.TensorView,
    "fermt_attention_shape": abi.AttentionShape,
    "fermt_unit_shape": abi.UnitShape,
    "fermt_linear_shape": abi.LinearShape,
}
STRUCTS = NESTED | {f"{function}_args": structure for function, structure in abi.ARGUMENTS.items()}
NUMBERS: dict[str, Any] = {"int64_t": ctypes.c_int64, "double": ctypes.c_double, "fermt_parallel_for": ctypes.c_void_p}


class Field(NamedTuple):
    """A member of a struct."""

    name: str
    kind: Any
    length: int  # 1, or that of the array
    offset: int


def declared(name: str) -> list[Field]:
    """The members of a struct as the header declares them; every member is a multiple of 8 bytes, so none is padded."""
    (body,) = re.findall(r"typedef struct \{([^{}]*)\} " + name + ";", CODE)
    fields: list[Field] = []
    offset = 0
    for declaration in filter(None, (" ".join(part.split()) for part in body.split(";"))):
        kind, *names = re.match(r"((?:const )?\w+)(.*)", declaration).groups()  # type: ignore[union-attr]
        for declarator in names[0].split(","):
            pointer = "*" in declarator
            (member,) = re.findall(r"(\w+)(?:\[\w+\])?\s*$", declarator)
            size = re.search(r"\[(\w+)\]", declarator)
            length = 1 if size is None else CONSTANTS.get(size[1]) or int(size[1])
            ctype = ctypes.c_void_p if pointer else NUMBERS.get(kind) or NESTED[kind]
            fields.append(Field(member, ctype, length, offset))
            offset += length * ctypes.sizeof(ctype)
    return fields


def packed(structure: type[ctypes.Structure]) -> list[Field]:
    """The members of a struct as Python declares them."""
    fields = []
    for name, kind in structure._fields_:  # type: ignore[misc]
        array = issubclass(kind, ctypes.Array)
        element, length = (kind._type_, kind._length_) if array else (kind, 1)
        fields.append(Field(name, element, length, getattr(structure, name).offset))
    return fields


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_is_the_headers(name: str) -> None:
    expected = declared(name)
    assert packed(STRUCTS[name]) == expected
    last = expected[-1]
    assert ctypes.sizeof(STRUCTS[name]) == last.offset + last.length * ctypes.sizeof(last.kind)


def test_every_struct_of_the_header_is_declared() -> None:
    assert set(re.findall(r"\} (fermt_\w+);", CODE)) - {"fermt_status", "fermt_dtype", "fermt_head"} == set(STRUCTS)


@pytest.mark.parametrize("name", abi.LAYOUTS)
def test_packing_puts_each_value_where_the_struct_has_it(name: str) -> None:
    layout, structure = abi.LAYOUTS[name], abi.ARGUMENTS[name]
    value, fields = 1, {}
    for field, zero in layout.zeros().items():
        width = len(zero) if isinstance(zero, tuple) else 1
        fields[field] = tuple(range(value, value + width)) if width > 1 else value
        value += width
    read = structure.from_buffer_copy(layout.pack(fields))
    assert read.struct_size == ctypes.sizeof(structure)
    shape = getattr(read, "shape", None)
    for field, expected in fields.items():
        got = getattr(read, field) if hasattr(read, field) else getattr(shape, field)
        if isinstance(got, abi.TensorView):
            got = (got.data, *got.strides)
        assert (tuple(got) if isinstance(expected, tuple) else got) == expected, field
    assert layout.unpack(layout.pack(fields)) == {"struct_size": layout.size} | fields


def test_codes_are_the_headers() -> None:
    assert int(re.findall(r"#define FERMT_ABI_VERSION (\d+)", HEADER)[0]) == library.ABI_VERSION
    assert {str(dtype).removeprefix("torch.").upper(): code for dtype, code in abi.DTYPES.items()} == {
        name: CONSTANTS[f"FERMT_{name}"] for name in ("FLOAT32", "BFLOAT16", "FLOAT16")
    }
    assert {name: head.code for name, head in HEADS.items()} == {
        name: CONSTANTS[f"FERMT_{name.upper()}_HEAD"] for name in ("center", "corner")
    }
    assert CONSTANTS["FERMT_UNIT_WEIGHTS"] == len(DAUWeights._fields)
