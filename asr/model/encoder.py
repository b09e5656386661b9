"""The encoder: a convolutional stem that shortens the features in time, then Transformer or Conformer blocks."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.attention import MultiHeadAttention
from asr.model.configuration import EncoderConfiguration
from asr.model.layers import FeedForward, MaskedBatchNorm, Residual, length_mask, sinusoids


class Conv2dStem(nn.Module):
    """Convolutional subsampling by 4: two 3x3 convolutions of stride 2 over time and frequency (Dong et al. 2018).

    The second one's work grows with the square of ``channels``; in a small encoder it would be most of the whole.
    """

    def __init__(self, mels: int, width: int, channels: int | None = None) -> None:
        super().__init__()
        channels = channels or width
        self.first = nn.Conv2d(1, channels, kernel_size=3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)
        self.project = nn.Linear(channels * self.shorten(self.shorten(mels)), width)

    @staticmethod
    def shorten(length: int) -> int:
        """Length after one of the convolutions."""
        return (length + 1) // 2

    def positions(self, frames: Tensor) -> Tensor:
        """Encoder positions of so many frames."""
        return (frames + 3) // 4

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, mels) -> (batch, positions, width) with lengths; frames beyond ``lengths`` must be zero."""
        hidden = F.relu(self.first(features[:, None]))  # (batch, channels, frames / 2, mels / 2)
        lengths = (lengths + 1) // 2
        # The bias makes padding non-zero; the next convolution must not see that beside the last valid frame.
        hidden = hidden * length_mask(lengths, hidden.shape[2])[:, None, :, None]
        hidden = F.relu(self.second(hidden))
        lengths = (lengths + 1) // 2
        hidden = hidden.permute(0, 2, 1, 3).flatten(2)
        return self.project(hidden), lengths


class Conv1dStem(nn.Module):
    """Whisper's stem: two convolutions over time, the second of stride 2 (Radford et al. 2022, section 2.2)."""

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(mels, width, kernel_size=3, padding=1)
        self.second = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)

    def positions(self, frames: Tensor) -> Tensor:
        """Encoder positions of so many frames."""
        return (frames + 1) // 2

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, mels) -> (batch, positions, width) with lengths; frames beyond ``lengths`` must be zero."""
        hidden = F.gelu(self.first(features.transpose(1, 2)))
        hidden = hidden * length_mask(lengths, hidden.shape[2])[:, None]
        hidden = F.gelu(self.second(hidden))
        return hidden.transpose(1, 2), self.positions(lengths)


def attend_to_itself(attention: MultiHeadAttention, mask: Tensor | None, weights: list[Tensor] | None, inputs: Tensor) -> Tensor:
    """Self-attention of a block; its weights are added to ``weights`` if given."""
    output, seen = attention(inputs, mask=mask, return_weights=weights is not None)
    if weights is not None:
        weights.append(seen)
    return cast(Tensor, output)


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each with residual and norm (Vaswani et al. 2017, figure 1 left)."""

    def __init__(self, configuration: EncoderConfiguration) -> None:
        super().__init__()
        c = configuration
        self.self_attention = MultiHeadAttention(c.width, c.heads, c.dropout)
        self.self_attention_residual = Residual(c.width, c.norm, c.dropout)
        self.feed_forward = FeedForward(c.width, c.feed_forward, c.activation, c.dropout)
        self.feed_forward_residual = Residual(c.width, c.norm, c.dropout)

    def forward(self, inputs: Tensor, valid: Tensor, attend: Tensor | None, weights: list[Tensor] | None) -> Tensor:
        """(batch, positions, width) -> the same; self-attention's weights are added to ``weights`` if given."""

        hidden = self.self_attention_residual(inputs, partial(attend_to_itself, self.self_attention, attend, weights), valid)
        return cast(Tensor, self.feed_forward_residual(hidden, self.feed_forward, valid))

    def add_nothing(self) -> None:
        """Let a new layer on trained ones leave what they say as it is at first; with norms after the sub-layers it cannot."""
        for last in (self.self_attention.output, self.feed_forward.contract):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


class ConvolutionModule(nn.Module):
    """Conformer's convolution: gated point-wise, depth-wise, norm, swish, point-wise (Gulati et al. 2020, figure 2)."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = MaskedBatchNorm(width)
        self.contract = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, valid: Tensor) -> Tensor:
        """(batch, positions, width) -> the same; positions that are not ``valid`` (batch, positions) count as zero."""
        hidden = F.glu(self.expand(inputs), dim=-1) * valid[..., None]
        hidden = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        hidden = F.silu(self.norm(hidden, valid))
        return cast(Tensor, self.contract(hidden))


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention with rotary positions, convolution, half feed-forward, norm.

    Gulati et al. 2020, figure 1, with rotary instead of relative position scores (Su et al. 2021).
    """

    def __init__(self, configuration: EncoderConfiguration) -> None:
        super().__init__()
        c = configuration
        self.first_feed_forward = FeedForward(c.width, c.feed_forward, "swish", c.dropout)
        self.first_feed_forward_residual = Residual(c.width, c.norm, c.dropout, scale=0.5)
        self.self_attention = MultiHeadAttention(c.width, c.heads, c.dropout, rotary=True)
        self.self_attention_residual = Residual(c.width, c.norm, c.dropout)
        self.convolution = ConvolutionModule(c.width, c.kernel, c.dropout)
        self.convolution_residual = Residual(c.width, c.norm, c.dropout)
        self.second_feed_forward = FeedForward(c.width, c.feed_forward, "swish", c.dropout)
        self.second_feed_forward_residual = Residual(c.width, c.norm, c.dropout, scale=0.5)
        self.norm = nn.LayerNorm(c.width)

    def forward(self, inputs: Tensor, valid: Tensor, attend: Tensor | None, weights: list[Tensor] | None) -> Tensor:
        """(batch, positions, width) -> the same; self-attention's weights are added to ``weights`` if given."""

        hidden = self.first_feed_forward_residual(inputs, self.first_feed_forward, valid)
        hidden = self.self_attention_residual(hidden, partial(attend_to_itself, self.self_attention, attend, weights), valid)
        hidden = self.convolution_residual(hidden, lambda normal: self.convolution(normal, valid), valid)
        hidden = self.second_feed_forward_residual(hidden, self.second_feed_forward, valid)
        return cast(Tensor, self.norm(hidden))


class Encoder(nn.Module):
    """Filterbank features in, one vector for each position out."""

    def __init__(self, configuration: EncoderConfiguration, mels: int) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.stem = Conv1dStem(mels, c.width) if c.stem == "conv1d" else Conv2dStem(mels, c.width, c.stem_channels)
        block = ConformerBlock if c.block == "conformer" else TransformerBlock
        self.layers = nn.ModuleList(block(c) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        # With norms before the sub-layers nothing has normalised the sum of the last block. A Conformer's block has.
        self.norm = nn.LayerNorm(c.width) if c.norm != "after" and c.block == "transformer" else nn.Identity()

    def positions(self, frames: Tensor) -> Tensor:
        """Encoder positions of so many frames, int64 -> int64."""
        return self.stem.positions(frames)

    def forward(self, features: Tensor, lengths: Tensor, weights: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        Args:
            features: float32 (batch, frames, mels), zero beyond ``lengths``.
            lengths: int64 (batch,), frames.
            weights: if given, each layer's self-attention (batch, heads, positions, positions) is added to it.

        Returns:
            (batch, positions, width), zero beyond the lengths, and the lengths int64 (batch,), positions.
        """
        return self.upper(*self.lower(features, lengths, 0), 0, weights)

    def lower(self, features: Tensor, lengths: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """The stem and the first ``layers`` of the layers: features with lengths in frames -> what ``upper`` reads."""
        hidden, lengths = self.stem(features, lengths)
        if self.configuration.scale_embedding:
            hidden = hidden * math.sqrt(hidden.shape[-1])
        if self.configuration.block == "transformer":
            positions = sinusoids(hidden.shape[1], hidden.shape[2], device=hidden.device)
            if self.configuration.stem == "conv1d":
                # Whisper's published weights hold the positions in half precision, and its output depends on that.
                positions = positions.half()
            hidden = hidden + positions.to(hidden.dtype)
        return self._through(self.layers[:layers], self.dropout(hidden), lengths, None), lengths

    def upper(self, hidden: Tensor, lengths: Tensor, layers: int, weights: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """All after the first ``layers`` of the layers: (batch, positions, width) with lengths -> as ``forward``."""
        hidden = self.norm(self._through(self.layers[layers:], hidden, lengths, weights))
        return torch.where(length_mask(lengths, hidden.shape[1])[..., None], hidden, hidden.new_zeros(())), lengths

    @staticmethod
    def _through(layers: nn.ModuleList, hidden: Tensor, lengths: Tensor, weights: list[Tensor] | None) -> Tensor:
        valid = length_mask(lengths, hidden.shape[1])
        # An utterance without a single frame still attends to one position: softmax over nothing is not a number.
        attend = length_mask(lengths.clamp(min=1), hidden.shape[1])[:, None, None]
        everything = bool(attend.all())
        for layer in layers:
            hidden = layer(hidden, valid, None if everything else attend, weights)
        return hidden
