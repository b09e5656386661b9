"""Beam search over the autoregressive decoder, alone or with other scorers (shallow fusion, joint CTC/attention)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded, Recognizer
from asr.search.bounds import Heard, length_bound, repetition, shortest_text, silent_or_not, without_stop, without_unlikely_stop
from asr.search.greedy import forbidden_tokens
from asr.search.hypothesis import FinishReason, Hypothesis
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import Tokenizer

# Scorers see at least so many of a row's most probable tokens.
_FEWEST_CANDIDATES = 8


@dataclass(frozen=True)
class BeamOptions:
    """How wide and how long a beam search looks.

    Attributes:
        size: texts of an utterance that are followed at a time.
        n_best: hypotheses that are returned.
        threshold: texts so much worse than the best of their length are dropped; the narrower, the faster.
        length_bonus: added for each token.
        length_normalization: texts of different length are compared by score / (tokens + 1) ** this.
        decoder_weight: weight of the decoder's log-probabilities.
        stop_threshold: a text may end where the stop token's log-probability under the decoder is at least this times that of
            the likeliest other token; None: anywhere.
        minimum_length: a text ends with so many tokens for each of the encoder's positions at the earliest.
    """

    size: int = 10
    n_best: int = 1
    threshold: float = float("inf")
    length_bonus: float = 0.0
    length_normalization: float = 0.0
    decoder_weight: float = 1.0
    stop_threshold: float | None = None
    minimum_length: float = 0.0


@dataclass
class _Utterance:
    """What is known of one utterance while it is searched."""

    bound: int
    shortest: int
    heard: Heard | None
    finished: list[Hypothesis] = field(default_factory=list)
    cut: list[Hypothesis] = field(default_factory=list)  # ended by a bound; they count only if none ended by itself

    def is_done(self, running: Sequence[float], length: int, gain: float, options: BeamOptions) -> bool:
        """Whether no text of the beam can become one of the n best, or as many as the beam has have ended and are better."""
        if not running or (options.size == 1 and self.finished):
            return True
        if len(self.finished) < options.n_best:
            return False
        # A text that ended too early does not count: a decoder that was trained with smoothed labels gives every token, and so
        # the stop token, a little.
        now = max(running) / float((length + 1) ** options.length_normalization)
        if sum(each.score >= now for each in self.finished) >= options.size:
            return True
        worst = sorted((each.score for each in self.finished), reverse=True)[options.n_best - 1]
        # A score only falls, but for what a token can gain; divided by the length it is highest at one of the ends.
        best = max(running) + gain * (self.bound - length)
        longest = self.bound + 1 if best < 0 else length + 1
        return best <= worst * float(longest**options.length_normalization)


@torch.inference_mode()
def beam_search(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    options: BeamOptions,
    prompt: Sequence[str] | None = None,
    scorers: Sequence[tuple[float, PrefixScorer]] = (),
    heard: Sequence[Heard] | None = None,
) -> list[list[Hypothesis]]:
    """Follow the best texts of all utterances of a batch at once; each step reads one token a text.

    The decoder's cache is reordered and never computed again; the encoder's output is kept once for each utterance,
    whatever the beam; finished utterances leave the batch.

    Args:
        model: recogniser with a decoder.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        options: width and length.
        prompt: start tokens instead of the model's own.
        scorers: weights and scorers of this batch, a row for each utterance; their scores are added to the decoder's.
        heard: for each utterance, what CTC knows of repetitions.

    Returns:
        For each utterance at most ``n_best`` hypotheses, best first; ``score`` is what they are ranked by.
    """
    decoder = cast(Decoder, model.decoder)
    settings = decoder.configuration
    start = [tokenizer.identifier(token) for token in (prompt or settings.prompt)]
    device = encoded.values.device
    utterances = []
    for number, (samples, positions) in enumerate(zip(sample_lengths, encoded.lengths.tolist(), strict=True)):
        bound = length_bound(model, int(samples), len(start))
        shortest = shortest_text(options.minimum_length, positions, bound)
        utterances.append(_Utterance(bound, shortest, heard[number] if heard else None))
    forbidden_first, forbidden = forbidden_tokens(decoder, len(tokenizer), device)
    scorers = [(weight, scorer) for weight, scorer in scorers if weight]
    width = min(len(tokenizer), max(2 * options.size, _FEWEST_CANDIDATES if scorers else 1))
    gain = max(options.length_bonus, 0.0) + sum(weight * scorer.gain for weight, scorer in scorers)

    memories = list(utterances)  # the utterance of each row of the encoder's output
    owners = list(range(len(utterances)))  # the memory of each text that is followed
    texts: list[tuple[int, ...]] = [() for _ in utterances]
    log_probabilities: list[tuple[float, ...]] = [() for _ in utterances]
    totals = torch.zeros(len(utterances), dtype=torch.float64, device=device)
    tokens = torch.tensor(start, device=device).repeat(len(utterances), 1)
    cache = decoder.cache()
    while owners:
        length = len(texts[0]) + 1  # of the texts with the token that is chosen now
        logits = decoder(tokens, encoded.values, encoded.lengths, cache, last_only=True)[:, -1]
        spoken = (logits + (forbidden if length > 1 else forbidden_first)).log_softmax(dim=-1)
        short = [length <= memories[owner].shortest for owner in owners]
        if length == 1:
            spoken = silent_or_not(spoken, tokenizer.stop, settings.no_speech_threshold, short)
        spoken = without_unlikely_stop(without_stop(spoken, tokenizer.stop, short), tokenizer.stop, options.stop_threshold)
        values, candidates = _candidates(spoken, width, tokenizer.stop)
        goes_on = candidates != tokenizer.stop
        scores = totals[:, None] + options.decoder_weight * values.double() + options.length_bonus * goes_on
        for weight, scorer in scorers:
            scores = scores + weight * scorer.score(candidates)
        # What is forbidden stays so, whatever the decoder's weight.
        scores = scores.masked_fill(values == float("-inf"), float("-inf"))

        # The best continuations of each utterance: at most one a text is the stop token, so that enough others remain.
        grid, first = _side_by_side(scores, owners, len(memories))
        best, places = grid.topk(min(2 * options.size, grid.shape[1]), dim=1)
        rows: list[int] = []
        chosen: list[int] = []
        new_owners: list[int] = []
        new_texts: list[tuple[int, ...]] = []
        new_log_probabilities: list[tuple[float, ...]] = []
        new_totals: list[float] = []
        token_rows, value_rows = candidates.tolist(), values.tolist()
        for owner, (utterance, totals_of, places_of) in enumerate(zip(memories, best.tolist(), places.tolist(), strict=True)):
            running: list[float] = []
            followed = 0
            before = len(rows)
            for rank, (total, place) in enumerate(zip(totals_of, places_of, strict=True)):
                if total == float("-inf") or total < totals_of[0] - options.threshold or followed == options.size:
                    break
                row, column = first[owner] + place // candidates.shape[1], place % candidates.shape[1]
                token, value = token_rows[row][column], value_rows[row][column]
                if token == tokenizer.stop:
                    if rank < options.size:
                        utterance.finished.append(
                            _hypothesis(tokenizer, texts[row], log_probabilities[row], total, "stop", options)
                        )
                    continue
                followed += 1
                text, scored = (*texts[row], token), (*log_probabilities[row], value)
                excess = repetition(text, utterance.heard)
                if excess or length >= utterance.bound:
                    kept = length - excess
                    reason: FinishReason = "repetition" if excess else "length"
                    utterance.cut.append(_hypothesis(tokenizer, text[:kept], scored[:kept], total, reason, options))
                    continue
                running.append(total)
                rows.append(row)
                chosen.append(token)
                new_owners.append(owner)
                new_texts.append(text)
                new_log_probabilities.append(scored)
                new_totals.append(total)
            if utterance.is_done(running, length, gain, options):
                for each in (rows, chosen, new_owners, new_texts, new_log_probabilities, new_totals):
                    del each[before:]
        if not rows:
            break

        # Leaving copies what the others remember, so it waits until a quarter of the utterances is done.
        owners, texts, log_probabilities = new_owners, new_texts, new_log_probabilities
        kept_memories = sorted(set(owners))
        leaving = None
        if len(kept_memories) <= 0.75 * len(memories):
            leaving = torch.tensor(kept_memories, device=device)
            encoded = Encoded(encoded.values[leaving], encoded.lengths[leaving])
            memories = [memories[memory] for memory in kept_memories]
            renumbered = {memory: number for number, memory in enumerate(kept_memories)}
            owners = [renumbered[owner] for owner in owners]
        selected = torch.tensor(rows, device=device)
        tokens = torch.tensor(chosen, device=device)[:, None]
        totals = torch.tensor(new_totals, dtype=torch.float64, device=device)
        cache.share(selected, torch.tensor(owners, device=device), leaving)
        for _, scorer in scorers:
            scorer.advance(selected, tokens[:, 0])
    return [_ranked(utterance, options) for utterance in utterances]


def _candidates(spoken: Tensor, width: int, stop: int) -> tuple[Tensor, Tensor]:
    """The most probable tokens and always the stop token: log-probabilities and tokens (rows, width + 1)."""
    values, candidates = spoken.topk(width, dim=1)
    last = torch.full_like(candidates[:, :1], stop)
    # The stop token that is among the others is scored there.
    value = spoken[:, stop : stop + 1].masked_fill((candidates == stop).any(dim=1, keepdim=True), float("-inf"))
    return torch.cat((values, value), dim=1), torch.cat((candidates, last), dim=1)


def _side_by_side(scores: Tensor, owners: Sequence[int], memories: int) -> tuple[Tensor, list[int]]:
    """Scores (rows, candidates) -> (memories, most rows * candidates), and the first row of each memory.

    Rows are in order of their memories; a memory with fewer rows is filled up with minus infinity.
    """
    counts = [0] * memories
    places = []
    for owner in owners:
        places.append(counts[owner])
        counts[owner] += 1
    first = [sum(counts[:memory]) for memory in range(memories)]
    grid = scores.new_full((memories, max(counts), scores.shape[1]), float("-inf"))
    grid[torch.tensor(owners, device=scores.device), torch.tensor(places, device=scores.device)] = scores
    return grid.flatten(1), first


def _hypothesis(
    tokenizer: Tokenizer,
    tokens: tuple[int, ...],
    log_probabilities: tuple[float, ...],
    total: float,
    reason: FinishReason,
    options: BeamOptions,
) -> Hypothesis:
    score = total / (len(tokens) + 1) ** options.length_normalization
    return Hypothesis(tokenizer.decode(tokens).strip(), tokens, log_probabilities, score, reason)


def _ranked(utterance: _Utterance, options: BeamOptions) -> list[Hypothesis]:
    for found in (utterance.finished, utterance.cut):
        found.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
    return [*utterance.finished, *utterance.cut][: options.n_best]
