"""The accuracy rule must let a good result through and catch every kind of bad one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fermt_kernels import reference
from fermt_kernels.testing import (
    LAYOUTS,
    SPREAD,
    assert_accurate,
    attention_inputs,
    inaccuracy,
    over_families,
    shaken,
    unit_inputs,
)

from . import test_attention as attention_tests
from . import test_dual_attention_unit as unit_tests
from . import test_linear as linear_tests

CASE = (16, "mixed", 0.25)


def results(dtype: torch.dtype, seed: int = 0, neighbor: int = 0) -> tuple[Tensor, Tensor]:
    """(eager in `dtype`, truth) of one attention."""
    q, k, v = attention_inputs((2, 3, 40, 16), "contiguous", dtype, seed, neighbor)
    return reference.attention(q, k, v, *CASE)[0], reference.attention(q.double(), k.double(), v.double(), *CASE)[0]


def one_nan(x: Tensor) -> Tensor:
    x = x.clone()
    x[0, 0, 5, 3] = torch.nan
    return x


def one_bad_row(x: Tensor) -> Tensor:
    x = x.clone()
    x[1, 2, 7] = x[1, 2, 8]
    return x


def swapped_groups(x: Tensor) -> Tensor:
    return torch.cat((x[:, :, 16:], x[:, :, :16]), dim=2)


DEFECTS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "wrong scale": lambda x: x * 1.01,
    "swapped groups": swapped_groups,
    "one NaN": one_nan,
    "one infinity": lambda x: one_nan(x).nan_to_num(nan=torch.inf),
    "one bad row": one_bad_row,
    "a constant": lambda x: x + 0.02,
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accepts_the_truth_rounded_and_eager_itself(dtype: torch.dtype) -> None:
    eager, truth = results(dtype)
    assert inaccuracy(truth.to(dtype), eager, truth) is None
    assert inaccuracy(eager, eager, truth) is None


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rejects(defect: str, dtype: torch.dtype) -> None:
    eager, truth = results(dtype)
    broken = DEFECTS[defect](truth.to(dtype))
    assert inaccuracy(broken, eager, truth) is not None
    with pytest.raises(AssertionError, match="out"):
        assert_accurate(broken, eager, truth, "out")


def test_rejects_a_small_error_everywhere_by_its_rms() -> None:
    truth = torch.zeros(1000, dtype=torch.float64) + 1.0
    eager = truth.float()
    eager[0] += 1e-3  # a yardstick with one large error
    assert inaccuracy(truth.float() + 5e-4, eager, truth) is not None


def test_infinities_must_agree() -> None:
    truth = torch.tensor([1.0, -torch.inf], dtype=torch.float64)
    assert inaccuracy(truth.float(), truth.float(), truth) is None
    assert inaccuracy(torch.tensor([1.0, torch.inf]), truth.float(), truth) is not None
    assert inaccuracy(torch.tensor([1.0, -1e30]), truth.float(), truth) is not None


def test_shape_and_dtype_must_agree() -> None:
    eager, truth = results(torch.float32)
    assert inaccuracy(truth[..., :1].float(), eager, truth) is not None
    assert inaccuracy(truth, eager, truth) is not None
    assert inaccuracy(eager, eager, truth.float()) is not None


@pytest.mark.parametrize("defect", DEFECTS)
def test_rejects_a_defect_in_one_neighbor_of_one_family(defect: str) -> None:
    eager, truth = over_families(lambda *which: results(torch.float32, *which), 2)
    actual = truth.float()
    assert inaccuracy(actual, eager, truth, families=True) is None
    actual[1, 3] = DEFECTS[defect](actual[1, 3])
    assert inaccuracy(actual, eager, truth, families=True) is not None


def attended(dtype: torch.dtype, compute: torch.dtype) -> list[Tensor]:
    return attention_tests.everything((2, 3, 40, 16), 16, "mixed", "reference", dtype, compute)


def unit(dtype: torch.dtype, compute: torch.dtype) -> list[Tensor]:
    return unit_tests.everything((1, 4, 9, 30), 2, 5, "reference", dtype, compute, 8)


def multiplied(dtype: torch.dtype, compute: torch.dtype) -> list[Tensor]:
    return linear_tests.everything((50, 33, 64), True, "reference", dtype, compute)


OPS = {"attention": attended, "unit": unit, "linear": multiplied}
NAMES = {"attention": attention_tests.NAMES, "unit": unit_tests.NAMES, "linear": linear_tests.NAMES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_rejects_four_times_eagers_error_and_takes_once(op: str, dtype: torch.dtype) -> None:
    eager, truth = (OPS[op](dtype, compute) for compute in (dtype, torch.float64))
    for name, yardstick, exact in zip(NAMES[op], eager, truth, strict=True):
        error = yardstick.double() - exact
        for times, accepted in ((-4, False), (-1, True), (4, False)):
            actual = (exact + times * error).to(yardstick.dtype)
            assert (inaccuracy(actual, yardstick, exact, families=True) is None) == accepted, (name, times)


def test_the_order_of_eagers_sums_does_not_matter() -> None:
    """fc_0's gradient is a long sum that nearly cancels: in one problem eager's orders differ tenfold."""
    for dtype in DTYPES:
        truth, eager = unit(dtype, torch.float64), unit(dtype, dtype)

        def mirrored(seed: int, neighbor: int, dtype: torch.dtype = dtype) -> list[Tensor]:
            x, weights = unit_inputs((1, 4, 9, 30), 2, 5, dtype, seed, neighbor)
            grad = unit_inputs((1, 4, 9, 30), dtype=dtype, seed=seed + 100, neighbor=neighbor)[0]
            flipped = [weight.flip(2, 3) if weight.dim() == 4 else weight for weight in weights]
            grads = unit_tests.gradients(x.flip(2, 3), flipped, grad.flip(2, 3), "reference")
            return [grad.flip(2, 3) if grad.dim() == 4 else grad for grad in grads]

        for name, *three in zip(unit_tests.NAMES[1:], over_families(mirrored, 8), eager[1:], truth[1:], strict=True):
            assert_accurate(*three, name=f"{name}, {dtype}", families=True)


def test_neighbors_differ_by_little_in_every_dtype_and_layout() -> None:
    for dtype in DTYPES:
        for layout in LAYOUTS:
            first, second = (attention_inputs((2, 3, 7, 5), layout, dtype, 3, neighbor) for neighbor in (0, 1))
            for one, other in zip(first, second, strict=True):
                assert one.stride() == other.stride()
                change = (other.double() / one.double() - 1).abs()
                assert 0.5 * SPREAD < change.max() < 2 * SPREAD
                assert not torch.equal(*(attention_inputs((2, 3, 7, 5), layout, dtype, 3, k)[0] for k in (1, 2)))


def test_a_family_counts_by_its_condition() -> None:
    """A problem with numbers a hundred times as large does not hide the error of another."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.stack([shaken(torch.ones(50), seed, neighbor) for seed in range(2) for neighbor in range(8)]).double()
    truth = truth.view(2, 8, 50) * torch.tensor([1.0, 100.0]).view(2, 1, 1)
    eager = (truth * (1 + 1e-6 * torch.randn(truth.shape, generator=generator))).float()
    actual = eager.clone()
    assert inaccuracy(actual, eager, truth, families=True) is None
    actual[0] += 1e-5
    assert inaccuracy(actual, eager, truth, families=True) is not None
    assert inaccuracy(actual, eager, truth) is None


def test_only_who_asks_for_it_imports_it(fresh_python: Callable[..., str]) -> None:
    printed = fresh_python(
        "import sys, fermt_kernels, fermt; print('fermt_kernels.testing' in sys.modules);"
        "import fermt_kernels.testing; print('pytest' in sys.modules)"
    )
    assert printed.split() == ["False", "False"]
