"""The autoregressive decoder: masked self-attention, cross-attention, feed-forward, one token after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from asr.model.attention import KeyValueCache, MultiHeadAttention
from asr.model.configuration import DecoderConfiguration, DecoderStackConfiguration
from asr.model.layers import FeedForward, Residual, length_mask, sinusoids, sinusoids_at


@dataclass
class DecoderWeights:
    """Attention weights of a decoder's pass, one tensor a layer, filled on request."""

    self_attention: list[Tensor] = field(default_factory=list)
    cross_attention: list[Tensor] = field(default_factory=list)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with residual and norm (Vaswani et al. 2017, figure 1 right).

    Args:
        configuration: of the stack.
        width: features of inputs and outputs.
        causal: masked self-attention, each step sees only what is to its left; False: all see all.
        listens: has cross-attention; a language model's layers have none.
    """

    def __init__(self, configuration: DecoderStackConfiguration, width: int, causal: bool = True, listens: bool = True) -> None:
        super().__init__()
        c = configuration
        self.causal = causal
        self.self_attention = MultiHeadAttention(width, c.heads, c.dropout)
        self.self_attention_residual = Residual(width, c.norm, c.dropout)
        self.cross_attention = MultiHeadAttention(width, c.heads, c.dropout) if listens else None
        self.cross_attention_residual = Residual(width, c.norm, c.dropout) if listens else None
        self.feed_forward = FeedForward(width, c.feed_forward, c.activation, c.dropout)
        self.feed_forward_residual = Residual(width, c.norm, c.dropout)

    def forward(
        self,
        inputs: Tensor,
        encoded: Tensor | None,
        attend: Tensor | None,
        valid: Tensor | None,
        cache: KeyValueCache | None,
        index: int,
        weights: DecoderWeights | None,
        attend_to_row: Tensor | None = None,
        encoded_lengths: Sequence[int] | None = None,
        row_lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """(batch, length, width) -> the same.

        Args:
            inputs: (batch, length, width).
            encoded: (batch, positions, width); None for a layer without cross-attention.
            attend: which positions of ``encoded`` may be attended to, bool (batch, 1, 1, positions).
            valid: which steps are not padding, bool (batch, length), for batch normalisation.
            cache: earlier steps. A layer that is not causal has none and keeps only cross-attention's memory in it.
            index: this layer's place in ``cache``.
            weights: if given, filled with the attention weights.
            attend_to_row: which steps may be attended to, bool (batch, 1, 1, length), where rows differ in length.
            encoded_lengths: see ``MultiHeadAttention``'s ``memory_lengths``.
            row_lengths: the same of self-attention, in place of ``attend_to_row``.
        """
        want = weights is not None

        def self_attention(normal: Tensor) -> Tensor:
            past = cache.self_attention[index] if cache and self.causal else None
            output, seen = self.self_attention(normal, None, attend_to_row, self.causal, past, want, memory_lengths=row_lengths)
            if weights is not None:
                weights.self_attention.append(cast(Tensor, seen))
            return cast(Tensor, output)

        def cross_attention(normal: Tensor) -> Tensor:
            assert self.cross_attention is not None
            memory = cache.cross_attention[index] if cache else None
            rows = cache.memory_rows if cache else None
            output, seen = self.cross_attention(
                normal,
                encoded,
                mask=attend,
                cache=memory,
                return_weights=want,
                memory_rows=rows,
                memory_lengths=encoded_lengths,
            )
            if weights is not None:
                weights.cross_attention.append(cast(Tensor, seen))
            return cast(Tensor, output)

        hidden = self.self_attention_residual(inputs, self_attention, valid)
        if self.cross_attention_residual is not None:
            hidden = self.cross_attention_residual(hidden, cross_attention, valid)
        return cast(Tensor, self.feed_forward_residual(hidden, self.feed_forward, valid))


class Decoder(nn.Module):
    """Tokens so far and the encoder's output in, scores of the next token out.

    The output layer is the token embedding, used the other way round (Press and Wolf 2017).

    Args:
        configuration: of the stack.
        width: features of the encoder's output and of every layer.
        vocabulary: number of tokens.
        listens: reads an encoder's output; otherwise it is a language model (``asr.model.language_model``).
    """

    def __init__(self, configuration: DecoderConfiguration, width: int, vocabulary: int, listens: bool = True) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.token_embedding: nn.Module = nn.Embedding(vocabulary, width)
        self.output: nn.Module | None = None  # stands in for the token embedding where that is not a float matrix
        nn.init.normal_(self.token_embedding.weight, std=width**-0.5)
        self.position_embedding: nn.Parameter | None = None
        if c.positions == "learned":
            self.position_embedding = nn.Parameter(nn.init.normal_(torch.empty(c.maximum_length, width), std=0.01))
        self.layers = nn.ModuleList(DecoderLayer(c, width, listens=listens) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        self.norm = nn.LayerNorm(width) if c.norm != "after" else nn.Identity()

    def cache(self) -> KeyValueCache:
        """An empty cache for a new batch."""
        return KeyValueCache(len(self.layers))

    def forward(
        self,
        tokens: Tensor,
        encoded: Tensor | None = None,
        encoded_lengths: Tensor | None = None,
        cache: KeyValueCache | None = None,
        token_lengths: Tensor | None = None,
        last_only: bool = False,
        weights: DecoderWeights | None = None,
    ) -> Tensor:
        """Score every token's successor: ``scores`` of ``states``, which has the other arguments.

        Args:
            last_only: score only the successor of the last token.

        Returns:
            Logits, float32 (batch, length, vocabulary), or (batch, 1, vocabulary) with ``last_only``.
        """
        states = self.states(tokens, encoded, encoded_lengths, cache, token_lengths, weights)
        return self.scores(states[:, -1:] if last_only else states)

    def states(
        self,
        tokens: Tensor,
        encoded: Tensor | None = None,
        encoded_lengths: Tensor | None = None,
        cache: KeyValueCache | None = None,
        token_lengths: Tensor | None = None,
        weights: DecoderWeights | None = None,
    ) -> Tensor:
        """What the layers say at every token, before the last norm, (batch, length, width).

        Args:
            tokens: int64 (batch, length); with ``cache``, only the tokens that it has not seen yet.
            encoded: (batch, positions, width); a row for each of ``tokens``, or for each utterance that they share. None
                for a decoder that does not listen.
            encoded_lengths: int64, one a row of ``encoded``.
            cache: earlier steps; updated in place.
            token_lengths: int64 (batch,), needed only by batch normalisation in training.
            weights: if given, filled with the attention weights of each layer.
        """
        steps = cache.steps if cache else None
        offset = cache.length if cache else 0
        hidden = self.token_embedding(tokens)
        if self.configuration.scale_embedding:
            hidden = hidden * math.sqrt(hidden.shape[-1])
        if self.position_embedding is not None:
            places = slice(offset, offset + tokens.shape[1]) if steps is None else steps.places[:, None]
            positions = self.position_embedding[places]
        elif steps is None:
            positions = sinusoids(tokens.shape[1], hidden.shape[-1], offset, hidden.device)
        else:
            positions = sinusoids_at(steps.places[:, None], hidden.shape[-1])
        hidden = self.dropout(hidden + positions.to(hidden.dtype))
        attend = None if encoded is None or encoded_lengths is None else _mask(encoded_lengths.clamp(min=1), encoded.shape[1])
        lengths: list[int] | None = None
        if encoded_lengths is not None and tokens.is_cpu and not torch.is_grad_enabled():
            # On a processor utterance by utterance: eight bits would make a step of the last bit by which a batch differs.
            lengths = encoded_lengths.clamp(min=1).tolist()
        attend_to_row = None if steps is None else _mask(steps.places + 1, steps.end)
        valid = None if token_lengths is None else length_mask(token_lengths, tokens.shape[1])
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, encoded, attend, valid, cache, index, weights, attend_to_row, lengths)
        return cast(Tensor, hidden)

    def memory(self, cache: KeyValueCache, row: int, positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (heads, positions, head width) of the last cross-attention for a row of the batch."""
        last = cast(DecoderLayer, self.layers[-1]).cross_attention
        long_type = cast(MultiHeadAttention, last).long_type
        return cache.cross_attention[-1].row(row, positions, long_type)

    def scores(self, states: Tensor) -> Tensor:
        """Logits of the vocabulary, float32: ``states`` (..., width) -> (..., vocabulary)."""
        hidden = self.norm(states)
        if self.output is not None:
            return cast(Tensor, self.output(hidden))
        weight = cast(Tensor, self.token_embedding.weight)
        return nn.functional.linear(hidden, weight.to(hidden.dtype)).float()


def _mask(lengths: Tensor, size: int) -> Tensor | None:
    """Which positions may be attended to, bool (batch, 1, 1, size); None where all may, which is faster."""
    mask = length_mask(lengths, size)[:, None, None]
    return None if bool(mask.all()) else mask
