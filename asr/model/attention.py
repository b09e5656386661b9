"""Multi-head attention and the explicit cache of keys and values (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.layers import rotate

LONG = 125
"""Positions from which on attention is faster in 16 bits: with fewer, what it takes to begin a product counts for more."""
FEW = 8
"""Queries up to which a processor attends from each on its own in 32 bits, so that a token that is read after others has the
result that it has alone: sums of several are in another order. In 16 bits they are not."""
MANY = 32
"""Queries from which on a head is computed after another: its weights stay in the processor's cache, those of all do not."""


@dataclass(frozen=True)
class Steps:
    """The rows of a cache that take a step, where rows differ in length.

    Attributes:
        rows: int64 (taking,), ascending.
        places: int64 (taking,), number of steps that each has taken before.
        end: the largest of these, and 1.
    """

    rows: Tensor
    places: Tensor
    end: int


class AttentionCache:
    """Keys and values that one attention has already computed, (batch, heads, length, head width).

    Room is reserved ahead and doubled when full, so that appending a step copies one step and not everything.
    """

    def __init__(self) -> None:
        self.length = 0
        self._long_rows: dict[int, tuple[Tensor, Tensor]] = {}
        self.steps: Steps | None = None  # who takes the next steps, if not all rows together
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add steps (batch, heads, new, head width); return the keys and values of all steps so far.

        With ``steps``, the batch is the rows that take one; what lies beyond a row's own steps is not to be looked at.
        """
        if self.steps is not None:
            return self._append_to_some(self.steps, keys, values)
        end = self.length + keys.shape[2]
        if self._keys is None or self._values is None:
            # What is filled at once (cross-attention) is rarely extended: it gets no spare room. Every step reads all of it, and
            # a head's positions are read faster side by side.
            self._keys, self._values = keys.contiguous(), values.contiguous()
        elif end > self._keys.shape[2]:
            self._keys = self._grown(self._keys, max(end, 2 * self.length, 32))
            self._values = self._grown(self._values, max(end, 2 * self.length, 32))
        if self.length:
            self._keys[:, :, self.length : end] = keys
            self._values[:, :, self.length : end] = values
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all steps so far, (batch, heads, length, head width)."""
        assert self._keys is not None
        assert self._values is not None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def truncate(self, length: int) -> None:
        """Forget all steps but the first ``length``."""
        self.length = min(self.length, length)

    def row(self, number: int, end: int, long_type: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of the first ``end`` steps of a row that gets no more, (heads, end, head width).

        ``LONG`` steps or more are given, and kept, in ``long_type``; None: as they came.
        """
        if number in self._long_rows:
            return self._long_rows[number]
        keys, values = (each[number, :, :end] for each in self.read())
        if long_type is not None and end >= LONG:
            keys, values = (each.to(long_type, memory_format=torch.contiguous_format) for each in (keys, values))
            self._long_rows[number] = keys, values
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows of the batch."""
        if self._keys is None or self._values is None:
            return
        if self._long_rows:
            self._long_rows = {new: self._long_rows[old] for new, old in enumerate(rows.tolist()) if old in self._long_rows}
        if len(rows) == len(self._keys):
            # Most beams stay where they are: only the others' steps are copied.
            moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
            if 2 * len(moved) < len(rows):
                for each in (self._keys, self._values):
                    each[moved, :, : self.length] = each[rows[moved], :, : self.length]
                return
        self._keys, self._values = self._keys[rows], self._values[rows]

    def _append_to_some(self, steps: Steps, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self._keys is not None, "all rows take the first step together"
        assert self._values is not None
        if steps.end > self._keys.shape[2]:
            self._keys = self._grown(self._keys, max(steps.end, 2 * self.length, 32))
            self._values = self._grown(self._values, max(steps.end, 2 * self.length, 32))
        self._keys[steps.rows, :, steps.places] = keys[:, :, 0]
        self._values[steps.rows, :, steps.places] = values[:, :, 0]
        self.length = max(self.length, steps.end)
        keys, values = self._keys[:, :, : steps.end], self._values[:, :, : steps.end]
        return (keys, values) if len(steps.rows) == len(keys) else (keys[steps.rows], values[steps.rows])

    def _grown(self, old: Tensor, room: int) -> Tensor:
        # Zeros and not what happens to be in memory: a weight of 0 leaves a NaN what it is.
        new = old.new_zeros(old.shape[0], old.shape[1], room, old.shape[3])
        new[:, :, : self.length] = old[:, :, : self.length]
        return new


@dataclass(frozen=True)
class MemoryRows:
    """Which utterance's memory each row of a batch reads, where several rows read the same.

    Attributes:
        utterances: int64 (rows,), ascending.
        places: int64 (rows,), place of each row among those of its utterance.
        counts: rows of each utterance.
    """

    utterances: Tensor
    places: Tensor
    counts: tuple[int, ...]

    @property
    def most(self) -> int:
        """The most rows that an utterance has."""
        return max(self.counts, default=0)

    @classmethod
    def of(cls, utterances: Tensor) -> MemoryRows:
        """Number the rows of each utterance."""
        counts = torch.bincount(utterances)
        places = torch.arange(len(utterances), device=utterances.device) - (counts.cumsum(0) - counts)[utterances]
        return cls(utterances, places, tuple(counts.tolist()))

    def gather(self, values: Tensor, batch: int) -> Tensor:
        """Rows (rows, heads, length, width) side by side for each utterance, (batch, heads, most * length, width)."""
        _, heads, length, width = values.shape
        gathered = values.new_zeros(batch, heads, self.most, length, width)
        gathered[self.utterances, :, self.places] = values
        return gathered.flatten(2, 3)

    def scatter(self, gathered: Tensor) -> Tensor:
        """Back to rows: (batch, heads, most * length, width) -> (rows, heads, length, width)."""
        batch, heads, _, width = gathered.shape
        return gathered.view(batch, heads, self.most, -1, width)[self.utterances, :, self.places]


class KeyValueCache:
    """What a decoder remembers between steps: for each layer, self-attention's steps and cross-attention's memory.

    In a beam search many rows read the memory of one utterance, which is kept once: see ``share``.

    Args:
        layers: of the decoder.
    """

    def __init__(self, layers: int) -> None:
        self.self_attention = [AttentionCache() for _ in range(layers)]
        self.cross_attention = [AttentionCache() for _ in range(layers)]
        self.memory_rows: MemoryRows | None = None

    @property
    def length(self) -> int:
        """Number of tokens that the decoder has read, of the longest row."""
        return self.self_attention[0].length

    @property
    def steps(self) -> Steps | None:
        """Who takes the next step, if not all rows together."""
        return self.self_attention[0].steps

    def step(self, rows: Tensor, places: Tensor) -> None:
        """From now on a pass is one step of the rows int64 (taking,), after ``places`` (taking,) steps of their own."""
        steps = Steps(rows, places, int(places.max()) + 1)
        for cache in self.self_attention:
            cache.steps = steps

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length`` of each row."""
        for cache in self.self_attention:
            cache.truncate(length)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows of the batch, int64 (rows,): finished utterances leave."""
        for cache in (*self.self_attention, *self.cross_attention):
            cache.select(rows)

    def share(self, rows: Tensor, utterances: Tensor, memories: Tensor | None = None) -> None:
        """Keep, repeat or reorder the rows of a beam search; the memory stays one for each utterance.

        Args:
            rows: int64 (new rows,), the row whose tokens each new row goes on with.
            utterances: int64 (new rows,), the memory that each new row reads, ascending.
            memories: utterances whose memory is kept, where some have finished; ``utterances`` counts among these.
        """
        for cache in self.self_attention:
            cache.select(rows)
        if memories is not None:
            for cache in self.cross_attention:
                cache.select(memories)
        self.memory_rows = MemoryRows.of(utterances)


class MultiHeadAttention(nn.Module):
    """One class for self-, masked self- and cross-attention (Vaswani et al. 2017, equation 1).

    The key projection has no bias: it would add the same number to all scores of a query, which softmax ignores.

    Args:
        width: features of inputs and outputs.
        heads: number of heads; divides ``width``.
        dropout: probability of dropping an attention weight in training.
        rotary: turn queries and keys by their position (Su et al. 2021), for blocks without absolute positions.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, rotary: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.rotary = rotary
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        # Of query, key and value those with the same inputs in one product: all of self-attention, two of cross-attention.
        self.joint: nn.Module | None = None
        # In which utterances of ``LONG`` positions are attended to, one by one; None: as they come.
        self.long_type: torch.dtype | None = None

    def forward(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: AttentionCache | None = None,
        return_weights: bool = False,
        memory_rows: MemoryRows | None = None,
        memory_lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``inputs`` to ``memory`` (cross-attention), or to themselves.

        Args:
            inputs: (batch, length, width).
            memory: (batch, positions, width); None for self-attention.
            mask: bool, True = may attend, broadcast to (batch, heads, length, positions).
            causal: each step sees only itself and what is to its left.
            cache: earlier keys and values; self-attention appends to it, cross-attention fills it once.
            return_weights: also compute the attention weights, which costs time and memory.
            memory_rows: the row of ``memory`` that each row of ``inputs`` attends to; the same row if None.
            memory_lengths: attend to each row of ``memory``, or of ``inputs``, on its own, to so many of its positions and
                without ``mask``; unlike the whole batch at once, it computes a row alike whatever stands beside it.

        Returns:
            The output (batch, length, width), and the weights (batch, heads, length, positions) or None.
        """
        if memory is not None and cache is not None and cache.length:
            query = self._split(self.query(inputs))
            keys, values = cache.read()
        else:
            source = inputs if memory is None else memory
            if self.joint is None:
                parts = (self.query(inputs), self.key(source), self.value(source))
            elif memory is None:
                parts = self.joint(source).chunk(3, dim=-1)
            else:
                parts = (self.query(inputs), *self.joint(source).chunk(2, dim=-1))
            query, keys, values = (self._split(part) for part in parts)
            if self.rotary:
                offset = cache.length if cache is not None else 0
                query, keys = rotate(query, offset), rotate(keys, offset)
            if cache is not None:
                keys, values = cache.append(keys, values)

        whole = memory is None and cache is None and mask is None and not causal
        if self.long_type is not None and whole and memory_lengths is None and not torch.is_grad_enabled():
            memory_lengths = [inputs.shape[1]] * len(inputs)
        if memory_lengths is not None and not return_weights:
            if cache is None:
                read = [(keys[row, :, :end], values[row, :, :end]) for row, end in enumerate(memory_lengths)]
                if self.long_type is not None:
                    read = [(k.to(self.long_type), v.to(self.long_type)) if k.shape[1] >= LONG else (k, v) for k, v in read]
            else:
                read = [cache.row(row, end, self.long_type) for row, end in enumerate(memory_lengths)]
            attended = one_by_one(query, read, memory_rows, few_apart=cache is not None)
            return self.output(attended.transpose(1, 2).flatten(2)), None
        if memory_rows is not None:
            query = memory_rows.gather(query, len(keys))
        earlier = keys.shape[2] - query.shape[2]
        if causal and earlier and 1 < query.shape[2] <= FEW and mask is None and query.is_cpu and not return_weights:
            ends = range(earlier + 1, keys.shape[2] + 1)
            each = [
                F.scaled_dot_product_attention(query[:, :, place : place + 1], keys[:, :, :end], values[:, :, :end])
                for place, end in enumerate(ends)
            ]
            return self.output(torch.cat(each, dim=2).transpose(1, 2).flatten(2)), None
        if causal and query.shape[2] > 1:
            # With a cache the queries are the last steps, so the triangle is shifted to the right.
            steps = torch.ones(query.shape[2], keys.shape[2], dtype=torch.bool, device=query.device)
            triangle = steps.tril(earlier)
            mask = triangle if mask is None else mask & triangle
        if return_weights:
            scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            weights = scores.softmax(dim=-1)
            attended = weights @ values
        else:
            weights = None
            dropout = self.dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, dropout_p=dropout)
        if memory_rows is not None:
            attended = memory_rows.scatter(attended)
            weights = None if weights is None else memory_rows.scatter(weights)
        attended = attended.transpose(1, 2).flatten(2)  # (batch, heads, length, head width) -> (batch, length, width)
        return self.output(attended), weights

    def _split(self, projected: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, head width).

        Not with einops, which imports torch's compiler the first time: that takes longer than transcribing a sentence.
        """
        return projected.view(*projected.shape[:2], self.heads, -1).transpose(1, 2)


def one_by_one(
    query: Tensor, memory: Sequence[tuple[Tensor, Tensor]], memory_rows: MemoryRows | None, few_apart: bool = False
) -> Tensor:
    """Attention of the rows of each utterance to its own positions alone, without padding.

    Args:
        query: (rows, heads, length, head width).
        memory: keys and values of each utterance, (heads, positions, head width). Where they are of another type than the
            query, products are computed in it: a step of a search takes as long as it takes to read them, which in 16 bits
            are half as much.
        memory_rows: rows of each utterance; one each if None.
        few_apart: up to ``FEW`` queries of a row are computed one after another in 32 bits.

    Returns:
        As ``query``.
    """
    counts = [1] * len(memory) if memory_rows is None else [*memory_rows.counts]
    counts += [0] * (len(memory) - len(counts))
    scaled: Tensor | None = None  # in 16 bits, of all rows at once
    attended, first = [], 0
    for count, (keys, values) in zip(counts, memory, strict=True):
        if not count:
            continue
        rows = slice(first, first + count)
        first += count
        if keys.dtype == query.dtype:
            beside = query[rows].transpose(0, 1).flatten(1, 2)  # (heads, rows * length, head width)
            apart = few_apart and count == 1 and query.is_cpu and query.shape[2] <= FEW
            parts = beside.chunk(beside.shape[1], dim=1) if apart else (beside,)
            each = [F.scaled_dot_product_attention(part[None], keys[None], values[None])[0] for part in parts]
            seen = torch.cat(each, dim=1) if len(each) > 1 else each[0]
        else:
            if scaled is None:
                scaled = (query / math.sqrt(query.shape[-1])).to(keys.dtype)
            beside = scaled[rows].transpose(0, 1).flatten(1, 2)
            seen = attend(beside, keys, values)
        attended.append(seen.view(len(seen), count, -1, seen.shape[-1]).transpose(0, 1))
    return torch.cat(attended).to(query.dtype)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of scaled queries (heads, length, head width) to positions (heads, positions, head width) in their type."""
    if query.shape[1] < MANY:
        return torch.bmm(torch.bmm(query, keys.transpose(1, 2)).softmax(dim=-1), values)
    attended = torch.empty_like(query)
    for head, each in enumerate(query):
        torch.mm(torch.mm(each, keys[head].t()).softmax(dim=-1), values[head], out=attended[head])
    return attended
