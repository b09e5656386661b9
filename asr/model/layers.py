"""The parts that encoder and decoder share: normalisation, residual, feed-forward, positions, masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu}


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """True where a position is valid: lengths int64 (batch,) -> bool (batch, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def sinusoids(length: int, width: int, offset: int = 0, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions, float32 (length, width): sines in the first half, cosines in the second.

    The original (Vaswani et al. 2017, section 3.5) interleaves the two, which is a permutation of features that the
    next projection absorbs; this order, and wavelengths that reach 2 pi * 10000 in the last pair, are Whisper's.
    """
    return sinusoids_at(torch.arange(offset, offset + length, device=device), width)


def sinusoids_at(positions: Tensor, width: int) -> Tensor:
    """``sinusoids`` of positions int64 (...), float32 (..., width)."""
    half = width // 2
    # In float64: an angle of a thousand radians in float32 is off by as much as a bfloat16's last digit.
    steps = torch.arange(half, device=positions.device, dtype=torch.float64)
    frequencies = torch.exp(-math.log(10000.0) / max(half - 1, 1) * steps)
    angles = positions[..., None].double() * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def rotate(values: Tensor, offset: int = 0) -> Tensor:
    """Rotary position embedding: turn pairs of features by angles that grow with the position (Su et al. 2021).

    Args:
        values: (batch, heads, length, width), width even.
        offset: position of the first step.
    """
    half = values.shape[-1] // 2
    frequencies = 10000.0 ** -(torch.arange(half, device=values.device, dtype=torch.float32) / half)
    positions = torch.arange(offset, offset + values.shape[2], device=values.device, dtype=torch.float32)
    angles = positions[:, None] * frequencies
    cosine, sine = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    first, second = values[..., :half], values[..., half:]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics see valid positions only (Ioffe and Szegedy 2015).

    Padding would otherwise pull mean and variance towards its own constant, by an amount that depends on how the
    batch happened to be filled.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.momentum = momentum
        self.epsilon = epsilon
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise (batch, length, width) by the statistics of positions where ``mask`` (batch, length) is True."""
        if not self.training:
            mean, variance = self.running_mean, self.running_variance
        else:
            valid = inputs.float().flatten(0, 1) if mask is None else inputs.float()[mask]
            mean = valid.mean(dim=0)
            variance = valid.var(dim=0, unbiased=False)
            if len(valid):
                with torch.no_grad():
                    correction = len(valid) / max(len(valid) - 1, 1)
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_variance.lerp_(variance * correction, self.momentum)
        normal = (inputs - mean) * torch.rsqrt(variance + self.epsilon)
        scaled: Tensor = normal * self.weight + self.bias
        return scaled.to(inputs.dtype)


class Residual(nn.Module):
    """Residual connection and normalisation around a sub-layer.

    ``before``: x + f(norm(x)), which trains without care (Xiong et al. 2020); ``after``: norm(x + f(x)), the original;
    ``batch``: as ``before``, with batch normalisation over valid positions.
    """

    def __init__(self, width: int, norm: str, dropout: float, scale: float = 1.0) -> None:
        super().__init__()
        self.norm: nn.Module = MaskedBatchNorm(width) if norm == "batch" else nn.LayerNorm(width)
        self.after = norm == "after"
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, inputs: Tensor, sublayer: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Tensor:
        """Apply ``sublayer`` to (batch, length, width); ``mask`` (batch, length) says which positions are valid."""
        normal = inputs if self.after else self.normalize(inputs, mask)
        outputs = torch.add(inputs, self.dropout(sublayer(normal)), alpha=self.scale)
        return self.normalize(outputs, mask) if self.after else outputs

    def normalize(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """The norm alone, (batch, length, width)."""
        if isinstance(self.norm, MaskedBatchNorm):
            batch_normal: Tensor = self.norm(inputs, mask)
            return batch_normal
        normal: Tensor = self.norm(inputs)
        return normal


class FeedForward(nn.Module):
    """Position-wise feed-forward network (Vaswani et al. 2017, equation 2)."""

    def __init__(self, width: int, inner: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, length, width)."""
        outputs: Tensor = self.contract(self.dropout(self.activation(self.expand(inputs))))
        return outputs
