"""The non-autoregressive decoder: a row of start tokens in, the tokens of all its positions out, at once.

Two questions come up that one token after another does not have. How long is the row: ``LengthPredictor`` answers from
the encoder's output, or CTC does, or the row is long and the text ends at its first stop token; or the row has places
beside CTC's tokens, and is read as CTC's path is. And how do positions agree on one of several good answers: the decoder
also reads rows in which a part is known (a conditional masked language model, Ghazvininejad et al. 2019), so that the
search can ask again for what it is least sure of, or all of CTC's text (Chi et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.audio.files import SAMPLE_RATE
from asr.model.attention import KeyValueCache
from asr.model.configuration import NonautoregressiveConfiguration
from asr.model.decoder import DecoderLayer, DecoderWeights
from asr.model.layers import length_mask, sinusoids

# A token's sound is looked for so near its place, 0.1 s where a position is 20 ms; what is further off is a pause.
_REACH = 5


class LengthPredictor(nn.Module):
    """Probabilities of the text's length, from the encoder's output.

    Each position says what part of a token it holds, as in continuous integrate-and-fire (Dong and Xu 2020, equation 1);
    their sum is the centre of a discretised normal distribution over all lengths. A plain classifier over lengths
    (Ghazvininejad et al. 2019, section 2.1) has classes that training never saw, and learns nothing of the others' from
    its neighbours.

    Args:
        width: features of the encoder's output.
        maximum: longest length that has a probability.
    """

    def __init__(self, width: int, maximum: int) -> None:
        super().__init__()
        self.maximum = maximum
        self.hidden = nn.Linear(width, width // 2)
        self.rate = nn.Linear(width // 2, 1)
        # A spoken character lasts a few positions; from 1 the sum would first have to come down.
        nn.init.constant_(self.rate.bias, -1.0)
        self.spread = nn.Parameter(torch.zeros(()))

    def rates(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """Tokens that each position holds, float32 (batch, positions), 0 beyond ``lengths``."""
        rates: Tensor = F.softplus(self.rate(F.relu(self.hidden(encoded))).float()).squeeze(-1)
        return rates * length_mask(lengths, encoded.shape[1])

    def forward(self, rates: Tensor) -> Tensor:
        """Log-probabilities of the lengths 0 to ``maximum``: (batch, positions) -> (batch, 1 + maximum)."""
        centre = rates.float().sum(dim=1, keepdim=True)
        # A sum of independent parts spreads like its root.
        deviation = self.spread.float().exp() * (centre.detach() + 1).sqrt()
        lengths = torch.arange(self.maximum + 1, device=rates.device)
        return (-0.5 * ((lengths - centre) / deviation).square()).log_softmax(dim=-1)


def rates_around(places: Sequence[int], positions: int) -> Tensor:
    """Tokens that each position holds where CTC says each token at one place: float32 (positions,).

    A token lasts from half-way to the one before it to half-way to the one after it, at most ``_REACH`` positions to
    each side, and all its positions hold equal parts of it. (CTC's alignment as the first guess of a non-autoregressive
    decoder: Fan et al. 2021, CASS-NAT, section 3.2.)

    Args:
        places: position of each token, each after the one before.
        positions: of the encoder's output.
    """
    rates = torch.zeros(positions)
    for begin, end in extents(places, positions):
        rates[begin:end] = 1 / (end - begin)
    return rates


def extents(places: Sequence[int], positions: int) -> list[tuple[int, int]]:
    """First position of each token and the one behind its last, as ``rates_around`` has them; one of two at a place has none."""
    found = []
    for number, place in enumerate(places):
        begin = (places[number - 1] + place + 1) // 2 if number else 0
        end = (place + places[number + 1] + 1) // 2 if number + 1 < len(places) else positions
        found.append((max(begin, place - _REACH), min(end, place + _REACH + 1)))
    return found


def mean_heard(encoded: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
    """Mean of the encoder's output over stretches of it; zero over none.

    Args:
        encoded: (batch, positions, width).
        begins: int64 (batch, stretches), the first position of each.
        ends: int64 (batch, stretches), the one behind the last.

    Returns:
        (batch, stretches, width).
    """
    positions = torch.arange(encoded.shape[1], device=encoded.device)
    inside = (positions >= begins[..., None]) & (positions < ends[..., None])
    shares = inside / (ends - begins).clamp(min=1)[..., None]
    return shares.to(encoded.dtype) @ encoded


def integrate_and_fire(encoded: Tensor, rates: Tensor, size: int, lengths: Tensor | None = None) -> Tensor:
    """What the encoder says of each token (continuous integrate-and-fire, Dong and Xu 2020, section 3.1).

    The rates are laid end to end; the token ``n`` is the part between ``n`` and ``n + 1``, and each position counts by
    its share of that. The sums of all tokens are found at once, since it does not matter when a position is read.

    Args:
        encoded: (batch, positions, width).
        rates: tokens that each position holds, float32 (batch, positions).
        size: tokens to return.
        lengths: int64 (batch,); rates are scaled to this sum, as in training (equation 7). None: as they are.

    Returns:
        (batch, size, width), zero beyond the sum of the rates.
    """
    if lengths is not None:
        rates = rates * (lengths / rates.sum(dim=1).clamp(min=1e-6))[:, None]
    ends = rates.cumsum(dim=1)[:, None]  # (batch, 1, positions)
    starts = ends - rates[:, None]
    tokens = torch.arange(size, device=rates.device, dtype=rates.dtype)[:, None]
    shares = (torch.minimum(ends, tokens + 1) - torch.maximum(starts, tokens)).clamp(min=0)
    return shares.to(encoded.dtype) @ encoded


class NonautoregressiveDecoder(nn.Module):
    """A row of tokens, known or not, and the encoder's output in; scores of the tokens at all positions out.

    Its layers are the autoregressive decoder's, without the causal mask. A row is the text and a stop token. Where the
    length is known the stop token is shown, and nothing follows it; otherwise it is one of the unknown positions, and
    whatever follows it is stop tokens too. Or it is a text and the blanks around its tokens, without a stop token
    (``asr.search.realignment``). So the decoder sees which of them it is asked for.
    """

    def __init__(self, configuration: NonautoregressiveConfiguration, width: int, vocabulary: int) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.token_embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token_embedding.weight, std=width**-0.5)
        self.layers = nn.ModuleList(DecoderLayer(c, width, causal=False) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        self.norm = nn.LayerNorm(width) if c.norm != "after" else nn.Identity()
        predicts = "predictor" in c.lengths or (c.acoustic_embedding and c.lengths != ("alignment",))
        self.length_predictor = LengthPredictor(width, c.maximum_length - 1) if predicts else None
        self.acoustic = nn.Linear(width, width) if c.acoustic_embedding else None

    def memory(self) -> KeyValueCache:
        """An empty memory for a new batch: each layer's keys and values of the encoder's output."""
        return KeyValueCache(len(self.layers))

    def longest_text(self, samples: int) -> int:
        """Most tokens that an utterance of so many samples may have, from the configuration's tokens a second."""
        spoken = 8 + int(self.configuration.tokens_per_second * samples / SAMPLE_RATE)
        return min(spoken, self.configuration.maximum_length - 1)

    def acoustic_embedding(self, encoded: Tensor, rates: Tensor | None, size: int, lengths: Tensor | None) -> Tensor | None:
        """What the encoder says of each token of a row, (batch, size, width), where the configuration asks for it.

        Args:
            encoded: (batch, positions, width).
            rates: of the length predictor, (batch, positions).
            size: length of the longest row.
            lengths: int64 (batch,), tokens of each text; None where they are not known.
        """
        if self.acoustic is None or rates is None:
            return None
        return cast(Tensor, self.acoustic(integrate_and_fire(encoded, rates, size, lengths)))

    def heard_embedding(self, encoded: Tensor, begins: Tensor, ends: Tensor) -> Tensor | None:
        """What the encoder says where each place of a row is, (batch, size, width), where the configuration asks for it.

        Args:
            encoded: (batch, positions, width).
            begins: int64 (batch, size), the first position that each place of the row hears.
            ends: int64 (batch, size), the one behind the last.
        """
        return None if self.acoustic is None else cast(Tensor, self.acoustic(mean_heard(encoded, begins, ends)))

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        encoded: Tensor,
        encoded_lengths: Tensor,
        memory: KeyValueCache | None = None,
        acoustic: Tensor | None = None,
        weights: DecoderWeights | None = None,
    ) -> Tensor:
        """Score the tokens of every position.

        Args:
            tokens: int64 (batch, length), rows, the ``mask`` token where nothing is known.
            token_lengths: int64 (batch,), of each row, its stop token included.
            encoded: (batch, positions, width).
            encoded_lengths: int64 (batch,).
            memory: keys and values of ``encoded``, filled by the first pass and read by those that follow.
            acoustic: of ``acoustic_embedding`` or ``heard_embedding``.
            weights: if given, filled with the attention weights of each layer.

        Returns:
            Logits, float32 (batch, length, vocabulary).
        """
        hidden = self.token_embedding(tokens)
        if self.configuration.scale_embedding:
            hidden = hidden * math.sqrt(hidden.shape[-1])
        hidden = hidden + sinusoids(tokens.shape[1], hidden.shape[-1], device=hidden.device).to(hidden.dtype)
        if acoustic is not None:
            hidden = hidden + acoustic.to(hidden.dtype)
        hidden = self.dropout(hidden)
        attend = length_mask(encoded_lengths.clamp(min=1), encoded.shape[1])[:, None, None]
        valid = length_mask(token_lengths, tokens.shape[1])
        attend_to_row = length_mask(token_lengths.clamp(min=1), tokens.shape[1])[:, None, None]
        seen = None if bool(attend.all()) else attend
        row = None if bool(attend_to_row.all()) else attend_to_row
        heard: list[int] | None = None
        read: list[int] | None = None
        if tokens.is_cpu and not torch.is_grad_enabled():
            # On a processor utterance by utterance, as the autoregressive decoder.
            heard, read = encoded_lengths.clamp(min=1).tolist(), token_lengths.clamp(min=1).tolist()
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, encoded, seen, valid, memory, index, weights, row, heard, read)
        hidden = self.norm(hidden)
        return F.linear(hidden, self.token_embedding.weight.to(hidden.dtype)).float()
