"""The CTC score of prefixes, for one-pass joint search (Watanabe et al. 2017, algorithm 2).

The score of a prefix is the probability of all texts that begin with it. It follows from two forward variables at each
position: the probability of having said the prefix, ending in its last token or in a blank. A token of the decoder may be
several of the CTC head's, as a byte pair is letters, or none (``asr.search.spelling``): the prefix grows by one after another.

Such tokens make a beam unfair: each letter costs something and a full stop nothing, so that with an unsure head nothing but
punctuation is followed, though in the end it is the worst of all. The end is foreseen then as A* does (Hart et al. 1968): the
most probable path goes on from where a prefix is said, so that it costs only what is worse than that path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.layers import length_mask
from asr.search.spelling import BEGIN, Spelling, State

# In place of the logarithm of 0, so that differences of sums of it stay numbers.
_NEVER = -1e4


@dataclass(frozen=True)
class _Prefixes:
    """Texts so far, in the CTC head's tokens, each of an utterance once.

    Attributes:
        utterances: int64 (prefixes,), whose they are.
        last: int64 (prefixes,), last token, or -1.
        scores: float64 (prefixes,), of all texts that begin so, or of the best of them as far as it is foreseen.
        after_token: float64 (prefixes, positions + 1), forward variables; position 0 is before the first.
        after_blank: the same.
    """

    utterances: Tensor
    last: Tensor
    scores: Tensor
    after_token: Tensor
    after_blank: Tensor

    def __getitem__(self, chosen: Tensor) -> _Prefixes:
        return _Prefixes(*(value[chosen] for value in vars(self).values()))

    def replaced(self, chosen: Tensor, others: _Prefixes) -> _Prefixes:
        """The same with others in some places."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Prefixes(*(value.index_copy(0, chosen, other) for value, other in pairs))


class _Text(NamedTuple):
    """What a row has of its prefix: which it is, and where the decoder's text is in its spelling."""

    prefix: int
    state: State


class CtcPrefixScorer:
    """Scores candidates of all rows at once; the recursions over positions are cumulative sums and not loops.

    Rows that differ in what the head does not write, as capitals and commas, share a prefix.

    Args:
        log_probabilities: (batch, positions, vocabulary), of the CTC head.
        lengths: int64 (batch,), positions.
        blank: its token.
        stop: the decoder's token whose score is that of the whole text.
        spelling: of the decoder's tokens in those of the head.
        lookahead: whether what follows a prefix is foreseen; a whole text's score is the same.
    """

    def __init__(
        self,
        log_probabilities: Tensor,
        lengths: Tensor,
        blank: int,
        stop: int,
        spelling: Spelling,
        lookahead: bool = False,
    ) -> None:
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
        # Of the most probable path after each position, (batch, positions).
        path = self._values.amax(dim=1) * lookahead
        self._ahead = path.sum(dim=1, keepdim=True) - path.cumsum(dim=1)
        # No text is more probable than 1, so that in the end it gains at most what was foreseen of it.
        self.gain = max((-path.sum(dim=1)).tolist(), default=0.0)
        self._spelling = spelling
        batch = len(values)
        utterances = torch.arange(batch, device=values.device)
        # The empty prefix: so far all was blank.
        self._prefixes = _Prefixes(
            utterances=utterances,
            last=torch.full_like(utterances, -1),
            scores=path.sum(dim=1),
            after_token=torch.full_like(self._blanks, float("-inf")),
            after_blank=self._blanks,
        )
        self._written: list[tuple[int, ...]] = [(utterance,) for utterance in range(batch)]  # and the tokens of each prefix
        self._texts = [_Text(utterance, BEGIN) for utterance in range(batch)]
        self._given = values.new_zeros(batch)  # score of each row, as far as the search knows it

    def score(self, candidates: Tensor) -> Tensor:
        """Differences of the prefix scores, float64 (rows, candidates); see ``PrefixScorer``."""
        prefixes = self._prefixes
        own = torch.tensor([text.prefix for text in self._texts], device=candidates.device)
        ends = candidates == self._stop
        written = self._spelling.table([text.state for text in self._texts], candidates)
        written = F.pad(written.masked_fill(ends[..., None], -1), (0, 1), value=-1)  # (rows, candidates, depth + 1)
        # A token that writes nothing leaves the prefix as it is.
        scores = prefixes.scores[own, None].repeat(1, candidates.shape[1])
        # The others make a tree for each prefix, since "the" and "they" begin alike; it is computed from one depth to the next.
        reached = own[:, None].repeat(1, candidates.shape[1])  # the prefix that each candidate has come to
        for tokens, following in zip(written.unbind(dim=2), written.unbind(dim=2)[1:], strict=False):
            last, inner = (tokens >= 0) & (following < 0), following >= 0
            if last.any():
                parents, said, numbers = self._distinct(reached[last], tokens[last])
                scores[last] = self._begun(prefixes, parents, said)[numbers]
            if inner.any():
                parents, said, reached[inner] = self._distinct(reached[inner], tokens[inner])
                prefixes = self._grown(prefixes, parents, said)
        prefixes = self._prefixes
        whole = torch.logaddexp(prefixes.after_token[:, -1], prefixes.after_blank[:, -1])
        scores = torch.where(ends, whole[own, None], scores) - self._given[:, None]
        return torch.where(scores.isnan(), float("-inf"), scores)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Append tokens; see ``PrefixScorer``."""
        numbers: dict[tuple[int, ...], int] = {}
        parents: list[int] = []
        grown: list[tuple[int, ...]] = []  # what is new of each prefix
        texts: list[_Text] = []
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            prefix, state = self._texts[row]
            written, state = self._spelling.follow(state, token)
            number = numbers.setdefault(self._written[prefix] + written, len(numbers))
            if number == len(parents):
                parents.append(prefix)
                grown.append(written)
            texts.append(_Text(number, state))
        prefixes = self._prefixes[torch.tensor(parents, device=rows.device)]
        for depth in range(max(map(len, grown), default=0)):
            growing = [number for number, written in enumerate(grown) if len(written) > depth]
            said = torch.tensor([grown[number][depth] for number in growing], device=rows.device)
            chosen = torch.tensor(growing, device=rows.device)
            prefixes = prefixes.replaced(chosen, self._grown(prefixes, chosen, said))
        self._prefixes, self._written, self._texts = prefixes, list(numbers), texts
        self._given = prefixes.scores[torch.tensor([text.prefix for text in texts], device=rows.device)]

    def _distinct(self, parents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each pair of a prefix and a token once, in order of the prefixes, and which of these those that were given are."""
        size = self._values.shape[1]
        pairs, numbers = torch.unique(parents * size + tokens, return_inverse=True)
        return pairs // size, pairs % size, numbers

    def _begun(self, prefixes: _Prefixes, parents: Tensor, tokens: Tensor) -> Tensor:
        """Scores float64 (pairs,) of the prefixes ``parents``, each followed by one of ``tokens``, both int64 (pairs,)."""
        spoken = torch.logaddexp(prefixes.after_token, prefixes.after_blank)[:, :-1] + self._ahead[prefixes.utterances]
        # A sum of products is much cheaper than one of logarithms; in float64 only what is smaller than 1e-300 of the
        # largest is lost.
        largest = spoken.max(dim=1, keepdim=True).values.clamp(min=_NEVER)
        weights = (spoken - largest).exp()  # (prefixes, positions)
        utterances = prefixes.utterances[parents]
        rows, columns, owners = _table(parents)
        table = tokens.new_full((len(owners), int(columns.max()) + 1), self._blank)
        table[rows, columns] = tokens
        gathered = self._probabilities[prefixes.utterances[owners, None], table]  # (rows, columns, positions)
        scores = (gathered @ weights[owners, :, None])[rows, columns, 0].log() + largest[parents, 0]
        # The last token again is a new one only after a blank.
        again = (tokens == prefixes.last[parents]).nonzero()[:, 0]
        after_blank = prefixes.after_blank[parents[again], :-1] + self._ahead[utterances[again]]
        scores[again] = torch.logsumexp(after_blank + self._values[utterances[again], tokens[again]], dim=1)
        return scores.masked_fill(tokens == self._blank, float("-inf"))

    def _grown(self, prefixes: _Prefixes, parents: Tensor, tokens: Tensor) -> _Prefixes:
        """The prefixes ``parents``, each followed by one of ``tokens``, both int64 (pairs,)."""
        utterances, after_blank = prefixes.utterances[parents], prefixes.after_blank[parents]
        again = (tokens == prefixes.last[parents])[:, None]
        spoken = torch.logaddexp(prefixes.after_token, prefixes.after_blank)[parents]  # (pairs, positions + 1)
        said = torch.where(again, after_blank, spoken)[:, :-1]
        values = self._values[utterances, tokens]
        # r(t) = (r(t-1) + said(t-1)) p(t) is, with P the sum of log p, exp(P(t)) times the sum of said(s) / exp(P(s)).
        sums, blanks = _sums(values), self._blanks[utterances]
        after_token = _shifted(sums[:, 1:] + torch.logcumsumexp(said - sums[:, :-1], dim=1))
        after_blank = _shifted(blanks[:, 1:] + torch.logcumsumexp(after_token[:, :-1] - blanks[:, :-1], dim=1))
        scores = torch.logsumexp(said + values + self._ahead[utterances], dim=1)
        return _Prefixes(utterances, tokens, scores, after_token, after_blank)


def _table(parents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of sorted ``parents`` int64 (pairs,) in a table whose rows have one parent each: rows, columns and rows' parents.

    It is as wide as a parent has pairs on the average, and those with more have several rows, so that little is empty.
    """
    distinct, numbers, counts = torch.unique_consecutive(parents, return_inverse=True, return_counts=True)
    width = -(-len(parents) // len(distinct))
    rows_of = -(-counts // width)
    places = torch.arange(len(parents), device=parents.device) - (counts.cumsum(0) - counts)[numbers]
    rows = (rows_of.cumsum(0) - rows_of)[numbers] + places // width
    return rows, places % width, distinct.repeat_interleave(rows_of)


def _sums(values: Tensor) -> Tensor:
    """Cumulative sums with a zero before: (prefixes, positions) -> (prefixes, positions + 1)."""
    return F.pad(values, (1, 0)).cumsum(dim=1)


def _shifted(values: Tensor) -> Tensor:
    """Before the first position nothing was said: (rows, positions) -> (rows, positions + 1)."""
    return F.pad(values, (1, 0), value=float("-inf"))
