"""The CTC score of prefixes, for one-pass joint search (Watanabe et al. 2017, algorithm 2).

The score of a prefix is the probability of all texts that begin with it. It follows from two forward variables at each
position: the probability of having said the prefix, ending in its last token or in a blank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.layers import length_mask

# In place of the logarithm of 0, so that differences of sums of it stay numbers.
_NEVER = -1e4


class CtcPrefixScorer:
    """Scores candidates of all rows at once; the recursions over positions are cumulative sums and not loops.

    Args:
        log_probabilities: (batch, positions, vocabulary), of the CTC head.
        lengths: int64 (batch,), positions.
        blank: its token.
        stop: the token whose score is that of the whole text.
    """

    gain = 0.0

    def __init__(self, log_probabilities: Tensor, lengths: Tensor, blank: int, stop: int) -> None:
        values = log_probabilities.double().clamp(min=_NEVER)
        # After an utterance's end nothing but blanks follows, which changes no probability.
        valid = length_mask(lengths, values.shape[1])[..., None]
        nothing = torch.full_like(values[:1, :1], _NEVER)
        nothing[..., blank] = 0.0
        # A token's positions lie side by side in memory: (batch, vocabulary, positions).
        self._values = torch.where(valid, values, nothing).transpose(1, 2).contiguous()
        self._probabilities = self._values.exp()
        self._blank, self._stop = blank, stop
        # Sums of the blank's up to each position: (batch, positions + 1).
        self._blanks = _sums(self._values[:, blank])
        batch, positions, _ = values.shape
        self._utterances = torch.arange(batch, device=values.device)
        self._last = torch.full_like(self._utterances, -1)
        # The empty prefix: position 0 is before the first, and so far all was blank.
        self._after_token = values.new_full((batch, positions + 1), float("-inf"))
        self._after_blank = self._blanks.clone()
        self._scores = values.new_zeros(batch)

    def score(self, candidates: Tensor) -> Tensor:
        """Differences of the prefix scores, float64 (rows, candidates); see ``PrefixScorer``."""
        spoken = torch.logaddexp(self._after_token, self._after_blank)  # (rows, positions + 1)
        gathered = self._probabilities[self._utterances[:, None], candidates]  # (rows, candidates, positions)
        # A sum of products is much cheaper than one of logarithms; in float64 only what is smaller than 1e-300 of the
        # largest is lost.
        largest = spoken[:, :-1].max(dim=1, keepdim=True).values.clamp(min=_NEVER)
        weights = (spoken[:, :-1] - largest).exp()
        scores = (gathered @ weights[..., None])[..., 0].log() + largest
        # The last token again is a new one only after a blank.
        known = self._last.clamp(min=0)
        again = torch.logsumexp(self._after_blank[:, :-1] + self._values[self._utterances, known], dim=1)
        scores = torch.where(candidates == self._last[:, None], again[:, None], scores)
        scores = scores.masked_fill(candidates == self._blank, float("-inf"))
        # Whisper's vocabulary has one token for both.
        scores = torch.where(candidates == self._stop, spoken[:, -1:], scores)
        scores = scores - self._scores[:, None]
        return torch.where(scores.isnan(), float("-inf"), scores)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Append tokens; see ``PrefixScorer``."""
        # The score before the forward variables, which it needs in their old state.
        utterances, last = self._utterances[rows], self._last[rows]
        after_token, after_blank = self._after_token[rows], self._after_blank[rows]
        said = torch.where(
            (tokens == last)[:, None], after_blank, torch.logaddexp(after_token, after_blank)
        )  # (rows, positions + 1)
        values = self._values[utterances, tokens]
        # r(t) = (r(t-1) + said(t-1)) p(t) is, with P the sum of log p, exp(P(t)) times the sum of said(s) / exp(P(s)).
        sums = _sums(values)
        self._after_token = _shifted(sums[:, 1:] + torch.logcumsumexp(said[:, :-1] - sums[:, :-1], dim=1))
        blanks = self._blanks[utterances]
        self._after_blank = _shifted(blanks[:, 1:] + torch.logcumsumexp(self._after_token[:, :-1] - blanks[:, :-1], dim=1))
        self._scores = torch.logsumexp(said[:, :-1] + values, dim=1)
        self._utterances, self._last = utterances, tokens


def _sums(values: Tensor) -> Tensor:
    """Cumulative sums with a zero before: (rows, positions) -> (rows, positions + 1)."""
    return torch.nn.functional.pad(values, (1, 0)).cumsum(dim=1)


def _shifted(values: Tensor) -> Tensor:
    """Before the first position nothing was said: (rows, positions) -> (rows, positions + 1)."""
    return torch.nn.functional.pad(values, (1, 0), value=float("-inf"))
