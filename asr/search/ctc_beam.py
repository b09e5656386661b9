"""CTC prefix beam search (Hannun et al. 2014, algorithm 1): all utterances and texts of a batch in one tensor program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model.layers import length_mask
from asr.search.hypothesis import Hypothesis
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import Tokenizer

# At each position so many of the most probable tokens may follow, or as many as the beam is wide.
_FEWEST_CANDIDATES = 10
_NEVER = float("-inf")


@dataclass(frozen=True)
class _Beam:
    """The texts that are followed, all (batch, size): logarithms of probabilities in float64, tokens and names in int64."""

    after_blank: Tensor
    after_token: Tensor
    last: Tensor
    name: Tensor
    parent: Tensor
    extra: Tensor
    probability: Tensor  # of each text's last token where it was first said

    @property
    def total(self) -> Tensor:
        return torch.logaddexp(self.after_blank, self.after_token)


@torch.inference_mode()
def ctc_beam_search(
    log_probabilities: Tensor,
    lengths: Tensor,
    tokenizer: Tokenizer,
    size: int,
    n_best: int = 1,
    scorers: Sequence[tuple[float, PrefixScorer]] = (),
    length_bonus: float = 0.0,
) -> list[list[Hypothesis]]:
    """Follow the most probable texts, each with the sum over all alignments that the beam has kept.

    Args:
        log_probabilities: (batch, positions, vocabulary) of the CTC head.
        lengths: int64 (batch,), positions.
        tokenizer: of the CTC head.
        size: texts that are followed at a time.
        n_best: hypotheses that are returned.
        scorers: weights and scorers of this batch, a row for each utterance.
        length_bonus: added for each token.

    Returns:
        For each utterance at most ``n_best`` hypotheses, best first; a token's log-probability is that at the position
        where it was first said.
    """
    batch, positions, vocabulary = log_probabilities.shape
    if not batch:
        return []
    scorers = [(weight, scorer) for weight, scorer in scorers if weight]
    device, blank = log_probabilities.device, tokenizer.blank
    values = log_probabilities.double()
    # After an utterance's end nothing but blanks follows, which changes no probability.
    nothing = torch.full_like(values[:1, :1], _NEVER)
    nothing[..., blank] = 0.0
    values = torch.where(length_mask(lengths, positions)[..., None], values, nothing)
    spoken = values.clone()
    spoken[..., blank] = _NEVER
    width = min(vocabulary - 1, max(_FEWEST_CANDIDATES, size))
    candidate_values, candidates = spoken.topk(width, dim=2)  # (batch, positions, width)
    blanks = values[..., blank]

    def everywhere(value: float) -> Tensor:
        return torch.full((batch, size), value, dtype=torch.float64, device=device)

    beam = _Beam(
        after_blank=everywhere(_NEVER),
        after_token=everywhere(_NEVER),
        last=torch.full((batch, size), -1, device=device),
        name=-2 - torch.arange(size, device=device).repeat(batch, 1),
        parent=torch.full((batch, size), -1, device=device),
        extra=everywhere(0.0),
        probability=everywhere(0.0),
    )
    beam.after_blank[:, 0] = 0.0
    if scorers:
        rows = torch.arange(batch, device=device).repeat_interleave(size)
        for _, scorer in scorers:
            scorer.advance(rows, torch.full_like(rows, -1))
    first = torch.arange(batch, device=device)[:, None] * size
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    for position in range(positions):
        tokens, said = candidates[:, position], candidate_values[:, position]
        extra = _extra(beam.extra, tokens, scorers, length_bonus)
        beam, origin, token = _step(beam, values[:, position], blanks[:, position], tokens, said, extra)
        history.append((origin, token, beam.probability))
        for _, scorer in scorers:
            scorer.advance((first + origin).flatten(), token.flatten())
    extra = beam.extra
    if scorers:
        stop = torch.full((batch * size, 1), tokenizer.stop, device=device)
        for weight, scorer in scorers:
            extra = extra + weight * scorer.score(stop).view(batch, size)
    scores, order = (beam.total + extra).topk(min(n_best, size), dim=1)
    texts, probabilities = _trace(history, order)
    return [
        [
            Hypothesis(tokenizer.decode(text).strip(), tuple(text), tuple(each), score, "stop")
            for text, each, score in zip(of_texts, of_probabilities, of_scores, strict=True)
            if score > _NEVER
        ]
        for of_texts, of_probabilities, of_scores in zip(texts, probabilities, scores.tolist(), strict=True)
    ]


def _extra(extra: Tensor, tokens: Tensor, scorers: Sequence[tuple[float, PrefixScorer]], length_bonus: float) -> Tensor:
    """What the scorers say of each text followed by each token, (batch, size, width)."""
    batch, size = extra.shape
    result = (extra + length_bonus)[..., None].expand(batch, size, tokens.shape[1])
    rows = tokens.repeat_interleave(size, dim=0) if scorers else tokens
    for weight, scorer in scorers:
        result = result + weight * scorer.score(rows).view(batch, size, -1)
    return result


def _step(
    beam: _Beam, values: Tensor, blanks: Tensor, tokens: Tensor, said: Tensor, extra: Tensor
) -> tuple[_Beam, Tensor, Tensor]:
    """One position: the new beam, and for each of its texts the old one that it came from and the token added, or -1."""
    size, width = beam.last.shape[1], tokens.shape[1]
    total = beam.total
    # Texts that stay as they are: a blank, or the last token again.
    last_values = values.gather(1, beam.last.clamp(min=0))
    stay_blank = total + blanks[:, None]
    stay_token = beam.after_token + last_values
    # Texts that grow; the last token again is a new one only after a blank.
    again = tokens[:, None] == beam.last[..., None]  # (batch, size, width)
    grown = said[:, None] + torch.where(again, beam.after_blank[..., None], total[..., None])
    # One that grows into a text of the beam is added to it: text i followed by the last token of its child j.
    child = beam.parent[..., None] == beam.name[:, None]  # (batch, j, i)
    same = beam.last[..., None] == beam.last[:, None]
    joined = torch.where(same, beam.after_blank[:, None], total[:, None]) + last_values[..., None]
    joined = torch.where(child, joined, _NEVER).max(dim=2).values
    stay_token = torch.logaddexp(stay_token, joined)
    twice = (child[..., None] & (beam.last[:, :, None, None] == tokens[:, None, None])).any(dim=1)  # (batch, i, width)
    grown = grown.masked_fill(twice, _NEVER)

    stay = torch.logaddexp(stay_blank, stay_token)
    ranked = torch.cat((stay + beam.extra, (grown + extra).flatten(1)), dim=1)
    best, chosen = ranked.topk(size, dim=1)
    grows = chosen >= size
    place = (chosen - size).clamp(min=0)
    origin = torch.where(grows, place // width, chosen)
    column = place % width
    token = torch.where(grows, tokens.gather(1, column), -1)
    name = beam.name.gather(1, origin)
    # A place that no text fills must not pass for one that grows into another.
    alive = best > _NEVER
    vacant = -2 - torch.arange(size, device=name.device)
    new = _Beam(
        after_blank=torch.where(grows, _NEVER, stay_blank.gather(1, origin)),
        after_token=torch.where(grows, grown.flatten(1).gather(1, place), stay_token.gather(1, origin)),
        last=torch.where(grows, token, beam.last.gather(1, origin)),
        name=torch.where(alive, torch.where(grows, _name(name, token), name), vacant),
        parent=torch.where(alive, torch.where(grows, name, beam.parent.gather(1, origin)), -1),
        extra=torch.where(grows, extra.flatten(1).gather(1, place), beam.extra.gather(1, origin)),
        probability=torch.where(grows, said.gather(1, column), beam.probability.gather(1, origin)),
    )
    return new, origin, token


def _name(parent: Tensor, token: Tensor) -> Tensor:
    """A number of 64 bits for a text; that two texts of a beam share one is not to be expected in a lifetime."""
    mixed = (parent ^ (token + 1) * 0x1E3779B97F4A7C15) * 0x3F58476D1CE4E5B9
    return mixed ^ (mixed >> 29) ^ (token << 40)


def _trace(history: list[tuple[Tensor, Tensor, Tensor]], order: Tensor) -> tuple[list[list[list[int]]], list[list[list[float]]]]:
    """Tokens and their log-probabilities of the texts at places ``order`` (batch, n) of the last beam."""
    batch, count = order.shape
    tokens, probabilities = [], []
    for origin, token, probability in reversed(history):
        tokens.append(token.gather(1, order))
        probabilities.append(probability.gather(1, order))
        order = origin.gather(1, order)
    if not history:
        return [[[] for _ in range(count)] for _ in range(batch)], [[[] for _ in range(count)] for _ in range(batch)]
    all_tokens = torch.stack(tokens[::-1], dim=2).tolist()
    all_probabilities = torch.stack(probabilities[::-1], dim=2).tolist()
    texts = [[[token for token in row if token >= 0] for row in rows] for rows in all_tokens]
    found = [
        [[value for value, token in zip(values, row, strict=True) if token >= 0] for values, row in zip(of, rows, strict=True)]
        for of, rows in zip(all_probabilities, all_tokens, strict=True)
    ]
    return texts, found
