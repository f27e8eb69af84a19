"""The crop's Triton kernel in the interpreter: equal to the reference, which equals OpenCV, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.backends import resolve
from fermt_kernels.triton import crop as launcher
from fermt_kernels.triton.launch import recording

from ..support.lanes import first_fast, slow

SQUARES = torch.tensor([[3, 1, 17], [-40, -30, 130], [-9, 5, 12], [30, -3, 9], [4, 33, 8], [0, 0, 1]])


def draw(height: int, width: int) -> Tensor:
    return torch.randint(256, (height, width, 3), dtype=torch.uint8)


LAYOUTS = {
    "contiguous": lambda x: x,
    "planes": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "a window": lambda x: torch.nn.functional.pad(x, (1, 0, 2, 2, 3, 3))[3:-3, 2:-2, 1:],
    "every second pixel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "gray": lambda x: x[..., :1].expand(x.shape),
}


@pytest.mark.parametrize("size", [1, 5, 8, slow(64), slow(71)])
def test_the_kernel_is_the_reference(size: int) -> None:
    image = draw(35, 40)
    got = fk.frame.crop(image, SQUARES, size, backend="triton")
    assert torch.equal(got, fk.reference.crop(image, SQUARES, size))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_any_strides(layout: str, dtype: torch.dtype) -> None:
    image = LAYOUTS[layout](draw(35, 40))
    squares = SQUARES[:3].to(dtype).mT.contiguous().mT
    got = fk.frame.crop(image, squares, 13, backend="triton")
    assert torch.equal(got, fk.reference.crop(image, squares, 13))


@pytest.mark.parametrize("draws", first_fast(range(6)))
def test_any_squares(draws: int) -> None:
    torch.manual_seed(draws)
    height, width = (int(n) for n in torch.randint(2, 60, (2,)))
    image, size = draw(height, width), int(torch.randint(1, 40, ()))
    side = torch.randint(1, 90, (4, 1))
    squares = torch.cat((torch.randint(-20, 50, (4, 2)) - side // 2, side), dim=1)
    out = torch.empty(4, size, size, 3, dtype=torch.uint8)
    launcher.crop_forward(image, squares, out)
    assert torch.equal(out, fk.reference.crop(image, squares, size))


@pytest.mark.slow
@pytest.mark.parametrize("side", [4999, 8191])
def test_positions_halfway_between_two_floats(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside OpenCV; in few programs, for the interpreter pays by the program."""
    monkeypatch.setattr(launcher, "ROWS", 256)
    monkeypatch.setattr(launcher, "COLUMNS", 2048)
    wide, squares = draw(3, side + 1), torch.tensor([[0, -(side // 2), side]])
    got = fk.frame.crop(wide, squares, 2048, backend="triton")
    assert torch.equal(got, fk.reference.crop(wide, squares, 2048))


def test_squares_that_are_not_checked_are_black() -> None:
    beyond = [[-5, 2, 5], [2, -5, 5], [11, 2, 5], [2, 8, 5], [2, 2, 0], [2, 2, -3], [-(2**31), 2, 9]]
    out = torch.full((len(beyond), 7, 7, 3), 9, dtype=torch.uint8)
    launcher.crop_forward(draw(9, 12), torch.tensor(beyond), out)
    assert not out.any()


def test_channels_in_reverse_order() -> None:
    image, out = draw(35, 40), torch.empty(6, 9, 9, 3, dtype=torch.uint8)
    launcher.crop_forward(image.flip(2), SQUARES, out, reverse=True)
    assert torch.equal(out, fk.reference.crop(image, SQUARES, 9))


def test_one_launch_for_all_targets() -> None:
    with recording() as launches:
        launcher.crop_forward(draw(35, 40), SQUARES, torch.empty(6, 20, 20, 3, dtype=torch.uint8))
    assert len(launches) == 1


def test_no_targets() -> None:
    assert fk.frame.crop(draw(9, 9), SQUARES[:0], 8, backend="triton").shape == (0, 8, 8, 3)


def test_auto_takes_the_kernel() -> None:
    assert resolve("crop", "auto", "cpu", torch.uint8, False) == "triton"
