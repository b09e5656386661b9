from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.training.schedule import cosine, inverse_square_root


@given(step=st.integers(1, 10**6), warmup=st.integers(1, 10**5), width=st.sampled_from([256, 512]))
def test_inverse_square_root_is_equation_3_with_its_peak_at_one(step: int, warmup: int, width: int) -> None:
    def equation(n: int) -> float:
        return float(width**-0.5 * min(n**-0.5, n * warmup**-1.5))

    assert inverse_square_root(step, warmup) == pytest.approx(equation(step) / equation(warmup), rel=1e-9)


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert inverse_square_root(1, 0) == 1
    assert cosine(0, 0, 100) == 1


def test_cosine_after_warmup_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for step in range(10, 101):
        assert cosine(step, 10, 100) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()
    assert [cosine(step, 10, 100) for step in (0, 1, 5)] == [0, 0.1, 0.5]


def test_cosine_stays_at_zero_after_its_end() -> None:
    assert cosine(150, 10, 100) == pytest.approx(0, abs=1e-12)
