"""When each word was said: the final text is laid over the sound by CTC, or by cross-attention.

A text that the decoder wrote is aligned by cross-attention where the model names the heads for it or has no CTC head. With
named heads it is the better way: on four speakers of dev-extra the 90th percentile of en's difference from known edges of words
was 59 ms in 72 recordings joined with short pauses or none and 35 ms in as many with their own silence; in the first 24 of
each 150 and 44 ms, by CTC 189 and 127 ms.

CTC: the most probable way in which the text's characters pass through the positions (torchaudio's forced alignment,
Kürzinger et al. 2020). Cross-attention: each token looks at where it is said; the path of the tokens through the attention
is found by dynamic time warping, as in the code that Radford et al. (2022) released. Two things are other than there. Some
heads look at the token that was just read and not at the one to be written: their rows are moved. And a token does not last
through a pause. How far from known edges the times are is in the models' cards.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio.segmentation import Segment
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import AlignmentHead
from asr.model.decoder import Decoder, DecoderWeights
from asr.model.recognizer import Encoded, Recognizer
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer
from asr.transcription.confidence import word_confidences
from asr.transcription.pauses import pauses, sound, sounding
from asr.transcription.transcript import Word
from asr.transcription.words import Span, spans, token_spans, tokens_of

Tokenizer = CharacterTokenizer | BytePairTokenizer
# A CTC head is sure of a character for one position and says nothing before and after it: a word begins before its first
# such position and lasts beyond its last, at most to where the next word begins. At 156 edges of joins without a pause, en's
# median difference is 16 ms with a lead of 20 ms and 51 with one of 60; at 190 of other speakers, 23 and 56.
_LEAD_SECONDS, _TAIL_SECONDS = 0.02, 0.12
_SHORTEST_WORD = 0.02
# Attention that every token pays to every position at least, of 1 that it has: where none looks, all are alike.
_LEAST_ATTENTION = 1e-3
# What it costs a token to last through a pause, as a logarithm of a probability. Between 10 and 20 nothing changed.
_THROUGH_PAUSE = 10.0


@torch.inference_mode()
def align(
    checkpoint: Checkpoint,
    encoded: Encoded,
    hypotheses: Sequence[Hypothesis],
    segments: Sequence[Segment],
    options: DecodingOptions,
) -> list[tuple[Word, ...]]:
    """Words of each hypothesis with their times in the recording and their confidence.

    Times grow from word to word, do not overlap and lie inside the segment.

    Args:
        checkpoint: model and tokenizers.
        encoded: the encoder's output of the segments.
        hypotheses: one for each segment.
        segments: where they lie.
        options: the search that found the hypotheses; its prompt stands before the tokens.
    """
    model = checkpoint.model
    found: list[tuple[Word, ...]] = []
    ctc = checkpoint.ctc_tokenizer if model.ctc is not None else None
    by_ctc = options.decoder in ("ctc", "ctc-beam")
    # Tokens that a CTC head with a vocabulary of its own wrote are none of the decoder's.
    decoder = None if by_ctc and ctc is not checkpoint.tokenizer else model.decoder
    named = not by_ctc and decoder is not None and bool(decoder.configuration.alignment_heads)
    log_probabilities = model.ctc_log_probabilities(encoded).cpu() if ctc is not None and not named else None
    for row, (hypothesis, segment) in enumerate(zip(hypotheses, segments, strict=True)):
        words = spans(hypothesis.text)
        if not words:
            found.append(())
            continue
        tokens = token_spans(hypothesis, checkpoint.tokenizer, *([ctc] if ctc is not None else []))
        grid = Grid.of(model, segment.duration, int(encoded.lengths[row]))
        frames = sound(segment.samples)
        times = None
        if ctc is not None and log_probabilities is not None:
            times = ctc_times(log_probabilities[row, : grid.positions], ctc, hypothesis.text, words, grid)
        if times is None and decoder is not None:
            memory = Encoded(encoded.values[row : row + 1], encoded.lengths[row : row + 1])
            heads = attend(checkpoint, memory, hypothesis, options)
            attention = follow(heads, decoder.configuration.aligning())[:, : grid.positions]
            times = attention_times(attention, hypothesis.text, words, tokens, grid, pauses(frames))
        if times is None:
            # More characters than positions: the text cannot be aligned, and is spread evenly.
            edges = np.linspace(0, segment.duration, len(words) + 1)
            times = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        confidences = word_confidences(model.configuration, hypothesis, words, tokens)
        found.append(
            tuple(
                Word(hypothesis.text[begin:end], segment.start + start, segment.start + stop, confidence)
                for (begin, end), (start, stop), confidence in zip(
                    words, sounding(orderly(times, segment.duration), frames), confidences, strict=True
                )
            )
        )
    return found


@dataclass(frozen=True)
class Grid:
    """Where encoder positions lie in time: position n is centred at ``offset + n * step`` seconds.

    Attributes:
        positions: how many of them hear the segment, without the silence that is added after it.
    """

    step: float
    offset: float
    positions: int
    duration: float

    @classmethod
    def of(cls, model: Recognizer, duration: float, positions: int) -> Grid:
        """The grid of a segment of so many seconds that has so many positions in all."""
        front_end = model.configuration.front_end
        whisper = front_end.convention == "whisper"
        shift = 0.01 if whisper else front_end.frame_shift_ms / 1000
        offset = 0.0 if whisper or not front_end.snip_edges else front_end.frame_length_ms / 2000
        step = shift * (2 if model.configuration.encoder.stem == "conv1d" else 4)
        heard = min(max(int(np.ceil((duration - offset) / step)), 1), max(positions, 1))
        return cls(step, offset, heard, duration)

    def centre(self, position: float) -> float:
        """Middle of a position in seconds."""
        return self.offset + position * self.step

    def outside(self, stretches: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
        """The positions that are not wholly within one of these stretches of time, in order; all if none is left."""
        centres = self.offset + np.arange(self.positions) * self.step
        first, last = np.maximum(centres - self.step / 2, 0), np.minimum(centres + self.step / 2, self.duration)
        left = np.ones(self.positions, dtype=np.bool_)
        for start, end in stretches:
            left &= (first < start - 1e-9) | (last > end + 1e-9)
        return np.flatnonzero(left if left.any() else ~left)


def ctc_times(
    log_probabilities: Tensor, tokenizer: Tokenizer, text: str, words: Sequence[Span], grid: Grid
) -> list[tuple[float, float]] | None:
    """Start and end of each word by forced alignment with CTC, in seconds from the segment's start.

    A word of which the head knows no character, as a number in digits, is aligned to whatever is said between its
    neighbours.

    Args:
        log_probabilities: (positions, vocabulary).

    Returns:
        None if the text has more characters than there are positions.
    """
    from torchaudio.functional import forced_align

    wildcard = log_probabilities.shape[1]
    unknown = getattr(tokenizer, "unknown", None)
    targets: list[int] = []
    owners: list[int] = []  # the word of each target; -1 for a space
    space = tokenizer.encode("a b")[1:-1] if isinstance(tokenizer, CharacterTokenizer) else []
    for number, (begin, end) in enumerate(words):
        known = [token for token in tokenizer.encode(text[begin:end]) if token != unknown]
        if number and space and space != [unknown] and text[words[number - 1][1] : begin].isspace():
            targets += space
            owners += [-1] * len(space)
        targets += known or [wildcard]
        owners += [number] * (len(known) or 1)
    repeats = sum(first == second for first, second in itertools.pairwise(targets))
    if len(targets) + repeats > len(log_probabilities):
        return None
    # What is not blank is the wildcard.
    spoken = torch.log1p(-log_probabilities[:, tokenizer.blank].exp().clamp(max=1 - 1e-6))
    emissions = torch.cat((log_probabilities, spoken[:, None]), dim=1)[None]
    path = forced_align(emissions, torch.tensor([targets], dtype=torch.int32), blank=tokenizer.blank)[0][0].tolist()
    first, last = [-1] * len(words), [-1] * len(words)
    index = -1
    for position, token in enumerate(path):
        if token == tokenizer.blank:
            continue
        if position == 0 or token != path[position - 1]:
            index += 1
        word = owners[index]
        if word >= 0:
            first[word] = position if first[word] < 0 else first[word]
            last[word] = position
    starts = [grid.centre(position) - _LEAD_SECONDS for position in first]
    ends = [
        max(grid.centre(position), min(grid.centre(position) + _TAIL_SECONDS, after))
        for position, after in zip(last, [*starts[1:], grid.duration], strict=True)
    ]
    return list(zip(starts, ends, strict=True))


def attend(checkpoint: Checkpoint, encoded: Encoded, hypothesis: Hypothesis, options: DecodingOptions) -> Tensor:
    """The decoder's cross-attention in the steps of a text that is known.

    Args:
        encoded: of this utterance alone, (1, positions, width).
        options: the search that found the hypothesis; its prompt stands before the tokens.

    Returns:
        (layers, heads, tokens + 1, positions). Row n writes token n and has read token n - 1; the last writes the stop token.
        Tokens that the decoder has no room for are left out.
    """
    decoder = cast(Decoder, checkpoint.model.decoder)
    prompt = [checkpoint.tokenizer.identifier(token) for token in (options.prompt or decoder.configuration.prompt)]
    inputs = [*prompt, *hypothesis.tokens][: decoder.configuration.maximum_length]
    weights = DecoderWeights()
    decoder(torch.tensor([inputs], device=encoded.values.device), encoded.values, encoded.lengths, weights=weights)
    return torch.cat(weights.cross_attention)[:, :, len(prompt) - 1 :]


def follow(heads: Tensor, aligning: Sequence[AlignmentHead]) -> NDArray[np.float32]:
    """Where each token is said, by the mean of the heads that look there.

    Args:
        heads: (layers, heads, tokens + 1, positions), see ``attend``.
        aligning: which of them.

    Returns:
        float32 (tokens, positions); a row sums to 1 over all positions.
    """
    rows = {"written": slice(0, -1), "read": slice(1, None)}
    chosen = [heads[each.layer, each.head, rows[each.token]] for each in aligning]
    return torch.stack(chosen).float().mean(dim=0).cpu().numpy()


def attention_times(
    attention: NDArray[np.float32],
    text: str,
    words: Sequence[Span],
    tokens: Sequence[Span],
    grid: Grid,
    silences: Sequence[tuple[float, float]],
) -> list[tuple[float, float]] | None:
    """Start and end of each word by where its tokens are looked for, in seconds from the segment's start.

    Args:
        attention: (tokens, positions), see ``follow``; if it has fewer tokens than the text, the rest comes at the end.
        tokens: span of each token in the text.
        silences: start and end of the pauses, in which nothing is said.

    Returns:
        None if there are no tokens.
    """
    # A mark is not heard: it would take a position from the words beside it.
    spans_heard = enumerate(tokens[: len(attention)])
    heard = [number for number, span in spans_heard if any(letter.isalnum() for letter in text[slice(*span)])]
    heard = heard or list(range(len(attention)))
    if not heard:
        return None
    said = dict(zip(heard, token_times(attention[heard], grid, silences), strict=True))

    def moment(token: int, index: int) -> float:
        """When the text's character of this index begins, in a token that may write several characters."""
        begin, end = tokens[token]
        begin += len(text[begin:end]) - len(text[begin:end].lstrip())
        share = min(max((index - begin) / max(end - begin, 1), 0.0), 1.0)
        return said[token][0] + share * (said[token][1] - said[token][0])

    times = []
    for begin, end in words:
        own = [token for token in tokens_of((begin, end), tokens) if token in said]
        times.append((moment(own[0], begin), moment(own[-1], end)) if own else (said[heard[-1]][1], grid.duration))
    return times


def token_times(attention: NDArray[np.float32], grid: Grid, silences: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Start and end of each token in seconds, in order; a position with sound belongs to one, but for a click or a breath.

    Args:
        attention: (tokens, positions), see ``follow``.
        silences: start and end of the pauses.
    """
    columns = grid.outside(silences)
    heard = attention[:, columns]
    # Where columns are not neighbours stands a pause.
    after_pause = np.diff(columns, prepend=columns[0]) > 1
    entered = warp(cost(heard), np.where(after_pause, _THROUGH_PAUSE, 0.0))
    left = [*(max(after, own + 1) for own, after in itertools.pairwise(entered)), len(columns)]
    times = []
    for row, (first, end) in enumerate(zip(entered, left, strict=True)):
        # What lasts through a pause has taken a click or a breath beside it: it is said where it looks most.
        bounds = [first, *(first + 1 + np.flatnonzero(after_pause[first + 1 : end])), end]
        first, end = max(itertools.pairwise(bounds), key=lambda part: heard[row, slice(*part)].sum())
        times.append((grid.centre(columns[first] - 0.5), grid.centre(columns[end - 1] + 0.5)))
    return times


def cost(attention: NDArray[np.float32]) -> NDArray[np.float64]:
    """How improbable it is that a position belongs to a token: the negative logarithm of its share of the attention there.

    Whisper's code takes z-scores of a head's columns and a median filter instead; with the same heads these were more than
    twice as far from known joins, for a position at which nobody looks counts as much in them as one where a token does.

    Args:
        attention: (tokens, positions).
    """
    floored = attention.astype(np.float64) + _LEAST_ATTENTION
    return np.asarray(-np.log(floored / floored.sum(axis=0)))


def warp(cost: NDArray[np.floating[Any]], through: NDArray[np.floating[Any]]) -> list[int]:
    """Dynamic time warping: at which column the cheapest path from corner to corner enters each row.

    The path steps one row down, one column to the right, or both (Sakoe and Chiba 1978).

    Args:
        cost: (rows, columns).
        through: (columns,), what a step to the right into each column costs besides.
    """
    rows, columns = cost.shape
    total = np.empty((rows, columns))
    total[0] = np.cumsum(cost[0] + through, dtype=np.float64) - through[0]
    for row in range(1, rows):
        # total[j] = cost[j] + min(above[j], above[j - 1], through[j] + total[j - 1]), the last resolved over the whole row at
        # once: with running sums s of both, total[j] - s[j] is the least of (entry[k] + cost[k] - s[k]) over all k <= j.
        above = total[row - 1]
        entry = np.minimum(above, np.concatenate(([np.inf], above[:-1])))
        sums = np.cumsum(cost[row] + through, dtype=np.float64)
        total[row] = sums + np.minimum.accumulate(entry + cost[row] - sums)
    entered = [0] * rows
    row, column = rows - 1, columns - 1
    while row > 0:
        diagonal = total[row - 1, column - 1] if column else np.inf
        above, left = total[row - 1, column], total[row, column - 1] + through[column] if column else np.inf
        if left < min(diagonal, above):
            column -= 1
            continue
        entered[row] = column
        row -= 1
        if diagonal <= above:
            column -= 1
    return entered


def orderly(times: Sequence[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    """Times that grow, do not overlap and lie within the segment; what overlaps is parted in the middle."""
    count = len(times)
    shortest = min(_SHORTEST_WORD, duration / max(count, 1))
    starts = np.array([start for start, _ in times], dtype=np.float64)
    ends = np.array([end for _, end in times], dtype=np.float64)
    overlap = ends[:-1] > starts[1:]
    middle = (ends[:-1] + starts[1:]) / 2
    ends[:-1], starts[1:] = np.where(overlap, middle, ends[:-1]), np.where(overlap, middle, starts[1:])
    # Each start leaves room for the words before and after it.
    room = shortest * np.arange(count)
    starts = np.maximum.accumulate(starts - room) + room
    starts = np.clip(starts, room, np.maximum(duration - shortest * (count - np.arange(count)), room))
    limits = np.append(starts[1:], duration)
    ends = np.clip(ends, starts + shortest, None)
    ends = np.minimum(ends, limits)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
