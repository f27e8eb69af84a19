"""The accuracy rule must let a good result through and catch every kind of bad one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fermt_kernels import reference

from .support.inputs import attention_inputs
from .support.tolerance import assert_accurate, inaccuracy

CASE = (16, "mixed", 0.25)


def results(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(eager in `dtype`, truth) of one attention."""
    q, k, v = attention_inputs((2, 3, 40, 16), dtype=dtype)
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
def test_rejects_a_defect_in_one_draw_of_several(defect: str) -> None:
    eager, truth = results(torch.float32)
    pairs = [torch.stack([t, t * 100, t]) for t in (eager, truth)]
    actual = pairs[1].float()
    assert inaccuracy(actual, *pairs, draws=True) is None
    actual[2] = DEFECTS[defect](actual[2])
    assert inaccuracy(actual, *pairs, draws=True) is not None
