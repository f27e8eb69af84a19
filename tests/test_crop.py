"""Crops of a frame: the reference beside OpenCV, bit for bit, and what the public function refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt.data import crop_target, target_square
from fermt_kernels.backends import resolve

from .support.errors import refused

IMAGE = torch.randint(256, (9, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SQUARES = torch.tensor([[1, 2, 5], [-3, -2, 20]])


def opencv(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """The authors' crop of a box that is the square itself."""
    crops = [crop_target(image.numpy(), (x, y, side, side), 1.0, size).image for x, y, side in squares.tolist()]
    return torch.from_numpy(np.stack(crops))


def assert_is_opencvs(image: Tensor, squares: Tensor, size: int) -> None:
    got, expected = fk.frame.crop(image, squares, size, backend="reference"), opencv(image, squares, size)
    assert torch.equal(got, expected), (
        f"{(got != expected).sum()} bytes differ: {tuple(image.shape)}, {squares}, {size}"
    )


def meeting(height: int, width: int, sides: range, count: int) -> Tensor:
    """Squares drawn anywhere about the image, all of which meet it."""
    side = torch.randint(sides.start, sides.stop, (count, 1))
    ends = torch.tensor([[width - 1, height - 1]])
    places = 1 - side + (torch.rand(count, 2) * (ends + side - 1)).long()
    return torch.cat((places, side), dim=1)


@pytest.mark.parametrize("draw", range(40))
def test_the_reference_is_opencvs(draw: int) -> None:
    torch.manual_seed(draw)
    height, width, size = (int(torch.randint(low, 150, ())) for low in (2, 2, 1))
    image = torch.randint(256, (height, width, 3), dtype=torch.uint8)
    for sides in (range(1, 12), range(1, 2 * max(height, width) + 2)):
        assert_is_opencvs(image, meeting(height, width, sides, 8), size)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@pytest.mark.parametrize("shape", [(2, 2), (2, 31), (40, 2), (33, 57)])
def test_squares_over_every_edge(shape: tuple[int, int], size: int) -> None:
    height, width = shape
    image = torch.randint(256, (*shape, 3), dtype=torch.uint8)
    middle = [(width - 20) // 2, (height - 20) // 2]
    squares = [
        [0, 0, 1],
        [0, 0, width],
        [0, 0, height],  # the last row and column belong to the outside
        [-19, middle[1], 20],
        [width - 2, middle[1], 20],
        [middle[0], -19, 20],
        [middle[0], height - 2, 20],
        [-7, -9, 100],
        [-2000, -1000, 3001],
    ]
    assert_is_opencvs(image, torch.tensor(squares), size)


def test_the_last_row_and_column_are_black() -> None:
    white = torch.full((6, 8, 3), 255, dtype=torch.uint8)
    seen = fk.frame.crop(white, torch.tensor([[0, 0, 8]]), 8, backend="reference")[0, :, :, 0] == 255
    assert torch.equal(seen, (torch.arange(8) < 5)[:, None] & (torch.arange(8) < 7))


@pytest.mark.parametrize("side", [1, 1001])
def test_the_largest_size(side: int) -> None:
    image = torch.randint(256, (6, side + 1, 3), dtype=torch.uint8)
    assert_is_opencvs(image, torch.tensor([[0, 5 - side, side]]), 4096)


@pytest.mark.parametrize("side", [4999, 8191])
def test_positions_halfway_between_two_floats(side: int) -> None:
    """Odd sides above twice this size have them: which float is taken decides a weight."""
    wide = torch.randint(256, (5, side + 1, 3), dtype=torch.uint8)
    assert_is_opencvs(wide, torch.tensor([[0, -(side // 2), side]]), 2048)
    assert_is_opencvs(wide.transpose(0, 1).contiguous(), torch.tensor([[-(side // 2), 0, side]]), 2048)


def test_a_trackers_boxes() -> None:
    rng, image = np.random.default_rng(0), torch.randint(256, (90, 120, 3), dtype=torch.uint8)
    for factor, size in ((2.0, 128), (4.0, 256)):
        boxes = [tuple(rng.uniform((-10, -10, 5, 5), (110, 80, 60, 60))) for _ in range(6)]
        squares = [target_square(box, factor) for box in boxes]
        got = fk.frame.crop(image, torch.tensor(squares), size)
        for box, square, crop in zip(boxes, squares, got, strict=True):
            expected = crop_target(image.numpy(), box, factor, size)
            assert np.array_equal(crop.numpy(), expected.image)
            assert square.side == expected.side
            assert (square.left < 0) == (expected.margins[2] > 0)


def test_squares_that_a_gpu_would_not_check_are_black() -> None:
    beyond = torch.tensor(
        [[-5, 2, 5], [2, -5, 5], [11, 2, 5], [2, 8, 5], [2, 2, 0], [2, 2, -3], [-(2**31), 2, 9], [2, 2**31 - 1, 9]]
    )
    for squares in (beyond, beyond.int()):
        assert not fk.reference.crop(IMAGE, squares, 7).any()
    assert fk.reference.crop(IMAGE, torch.tensor([[2, 2, 5]]), 7).any()


def test_images_and_squares_of_any_strides() -> None:
    image = torch.randint(256, (9, 12, 3), dtype=torch.uint8)
    expected = fk.frame.crop(image, SQUARES, 8)
    planes = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    window = torch.nn.functional.pad(image, (1, 0, 2, 2, 2, 2))[2:-2, 2:-2, 1:]
    for same in (planes, window):
        assert torch.equal(fk.frame.crop(same, SQUARES, 8), expected)
    assert torch.equal(fk.frame.crop(image, SQUARES.mT.contiguous().mT.int(), 8), expected)


def test_out_is_filled_and_returned() -> None:
    out = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert fk.frame.crop(IMAGE, SQUARES, 8, out=out) is out
    assert torch.equal(out, fk.frame.crop(IMAGE, SQUARES, 8))


def test_no_targets() -> None:
    assert fk.frame.crop(IMAGE, SQUARES[:0], 8).shape == (0, 8, 8, 3)


def test_the_backend_is_chosen_as_everywhere() -> None:
    assert resolve("crop", "auto", "cpu", torch.uint8, False) == "reference"
    with refused(RuntimeError, "'triton'", "crop_forward"):
        fk.frame.crop(IMAGE, SQUARES, 8, backend="triton")
    with refused(ValueError, "backend", "'fast'"):
        fk.frame.crop(IMAGE, SQUARES, 8, backend="fast")


BAD = [
    ({"image": IMAGE.numpy()}, TypeError, ("image", "(H, W, 3)", "ndarray")),
    ({"image": IMAGE.float()}, TypeError, ("image", "uint8", torch.float32)),
    ({"image": IMAGE.permute(2, 0, 1)}, ValueError, ("image", (3, 9, 12))),
    ({"image": IMAGE[None]}, ValueError, ("image", (1, 9, 12, 3))),
    ({"image": IMAGE[:1]}, ValueError, ("image", "2 x 2", (1, 12, 3))),
    ({"squares": [[1, 2, 5]]}, TypeError, ("squares", "int32", "int64", "list")),
    ({"squares": SQUARES.double()}, TypeError, ("squares", "int32", "int64", torch.float64)),
    ({"squares": SQUARES[0]}, ValueError, ("squares", "(B, 3)", (3,))),
    ({"squares": SQUARES[:, :2]}, ValueError, ("squares", (2, 2))),
    ({"squares": torch.tensor([[1, 2, 5], [1, 2, 0]])}, ValueError, ("square 1", (1, 2, 0), 2147483647)),
    ({"squares": torch.tensor([[1, 2, 2**31]])}, ValueError, ("square 0", (1, 2, 2**31))),
    ({"squares": torch.tensor([[-5, 2, 5]])}, ValueError, ("square 0", (-5, 2, 5), "12 x 9")),
    ({"squares": torch.tensor([[2, -5, 5]])}, ValueError, ("square 0", (2, -5, 5))),
    ({"squares": torch.tensor([[11, 2, 5]])}, ValueError, ("square 0", (11, 2, 5), "last row and column")),
    ({"squares": torch.tensor([[2, 8, 5]])}, ValueError, ("square 0", (2, 8, 5))),
    ({"size": 8.0}, TypeError, ("size", "int", 8.0)),
    ({"size": True}, TypeError, ("size", "int", True)),
    ({"size": 0}, ValueError, ("size", "[1, 4096]", 0)),
    ({"size": 4097}, ValueError, ("size", "[1, 4096]", 4097)),
    ({"out": np.zeros(3)}, TypeError, ("out", (2, 8, 8, 3), "ndarray")),
    ({"out": torch.zeros(2, 8, 8, 3)}, TypeError, ("out", "uint8", torch.float32)),
    ({"out": torch.zeros(2, 8, 9, 3, dtype=torch.uint8)}, ValueError, ("out", (2, 8, 8, 3), (2, 8, 9, 3))),
    (
        {"out": torch.zeros(2, 3, 8, 8, dtype=torch.uint8).permute(0, 2, 3, 1)},
        ValueError,
        ("out", "contiguous", (2, 8, 8, 3), (192, 8, 1, 64)),
    ),
    ({"out": torch.zeros(2, 8, 8, 3, dtype=torch.uint8, device="meta")}, ValueError, ("out", "cpu", "meta")),
]


@pytest.mark.parametrize(("given", "error", "values"), BAD)
def test_what_is_refused(given: dict[str, Any], error: type[Exception], values: tuple[object, ...]) -> None:
    with refused(error, "crop", *values):
        fk.frame.crop(**{"image": IMAGE, "squares": SQUARES, "size": 8} | given)
