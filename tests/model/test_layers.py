"""Norms against torch's own on data without padding, and positions and masks against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asr.model.layers import FeedForward, MaskedBatchNorm, Residual, length_mask, sinusoids


def test_batch_norm_equals_torch_on_unpadded_data() -> None:
    torch.manual_seed(3)
    ours, theirs = MaskedBatchNorm(6), nn.BatchNorm1d(6)
    with torch.no_grad():
        for parameter, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            other.copy_(nn.init.normal_(parameter))
    for _ in range(4):
        inputs = torch.randn(3, 10, 6) * 3 + 2
        mask = length_mask(torch.tensor([10, 4, 7]), 10)
        # What stands in the padding must not matter.
        padded = torch.where(mask[..., None], inputs, torch.full(inputs.shape, 1e4)).requires_grad_()
        packed = inputs[mask].requires_grad_()
        outputs, expected = ours(padded, mask)[mask], theirs(packed)
        torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
        direction = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad((outputs * direction).sum(), padded)
        (expected_gradient,) = torch.autograd.grad((expected * direction).sum(), packed)
        torch.testing.assert_close(gradient[mask], expected_gradient, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_variance, theirs.running_var)
    ours.eval(), theirs.eval()
    inputs = torch.randn(2, 5, 6)
    torch.testing.assert_close(ours(inputs), theirs(inputs.flatten(0, 1)).view(2, 5, 6))


def test_batch_norm_without_mask_sees_everything() -> None:
    ours, theirs, inputs = MaskedBatchNorm(4), nn.BatchNorm1d(4), torch.randn(2, 9, 4)
    torch.testing.assert_close(ours(inputs), theirs(inputs.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("norm", "scale"), [("before", 1.0), ("before", 0.5), ("after", 1.0), ("after", 0.5), ("batch", 1.0)])
def test_residual_is_its_formula(norm: str, scale: float) -> None:
    residual, inputs, linear = Residual(8, norm, 0.5, scale).eval(), torch.randn(2, 5, 8), nn.Linear(8, 8)
    layer_norm = nn.functional.layer_norm
    # An untrained batch norm in evaluation divides by sqrt(1 + epsilon) and no more.
    expected = {
        "before": inputs + scale * linear(layer_norm(inputs, (8,))),
        "after": layer_norm(inputs + scale * linear(inputs), (8,)),
        "batch": inputs + scale * linear(inputs / math.sqrt(1 + 1e-5)),
    }[norm]
    torch.testing.assert_close(residual(inputs, linear), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "activation"), [("relu", nn.ReLU()), ("gelu", nn.GELU()), ("swish", nn.SiLU())])
def test_feed_forward_equals_torch(name: str, activation: nn.Module) -> None:
    ours, inputs = FeedForward(6, 12, name, 0.3).eval(), torch.randn(2, 3, 6)
    torch.testing.assert_close(ours(inputs), nn.Sequential(ours.expand, activation, ours.contract)(inputs))


@given(st.integers(1, 50), st.integers(2, 16), st.integers(0, 2000))
@settings(max_examples=30)
def test_positions_are_sines_and_cosines(length: int, half: int, offset: int) -> None:
    table = sinusoids(length, 2 * half, offset)
    assert table.shape == (length, 2 * half)
    for feature in range(half):
        frequency = 10000.0 ** (-feature / (half - 1))
        for position in (0, length - 1):
            angle = (position + offset) * frequency
            assert float(table[position, feature]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[position, half + feature]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_are_whispers() -> None:
    original = pytest.importorskip("whisper.model").sinusoids(1500, 384)
    # The original computes angles in float32: up to 1500 radians, with an error of half a unit in the last place.
    torch.testing.assert_close(sinusoids(1500, 384), original, atol=3e-4, rtol=0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_masks_mark_the_first_positions(lengths: list[int]) -> None:
    mask = length_mask(torch.tensor(lengths), 12)
    assert mask.tolist() == [[n < length for n in range(12)] for length in lengths]
