"""When each word was said: the final text is laid over the sound by CTC, or by cross-attention where there is no CTC head.

CTC: the most probable way in which the text's characters pass through the positions (torchaudio's forced alignment,
Kürzinger et al. 2020). Cross-attention: each token looks at where it is said; the path of the tokens through the attention
is found by dynamic time warping (Radford et al. 2022 call it so in their released code; the median filter is theirs too).
It is coarser: on 17 read utterances half of the word edges lie within 130 ms of a Gaussian-mixture aligner's, with CTC 40 ms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asr.audio.files import SAMPLE_RATE
from asr.audio.segmentation import Segment
from asr.model.checkpoint import Checkpoint
from asr.model.decoder import Decoder, DecoderWeights
from asr.model.recognizer import Encoded, Recognizer
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer
from asr.transcription.confidence import word_confidences
from asr.transcription.transcript import Word
from asr.transcription.words import Span, spans, token_spans, tokens_of

Tokenizer = CharacterTokenizer | BytePairTokenizer
# A CTC head is sure of a character for one position and says nothing before and after it: a word begins before its first
# such position and lasts beyond its last, at most to where the next word begins. Fitted to a Gaussian-mixture aligner on
# read speech and to synthesised words at known times, see the benchmarks.
_LEAD_SECONDS, _TAIL_SECONDS = 0.06, 0.12
_MEDIAN_WIDTH = 7
# Attention heads that follow the speech: so many of those whose weights are the most concentrated and the most in order.
_HEADS = 6
_SHORTEST_WORD = 0.02
# Where the sound is 30 dB below the segment's loudest 10 ms, nobody speaks.
_FRAME_SECONDS, _SILENT = 0.01, 1e-3
_PAUSE_FRAMES = 15  # longer than the closure of a plosive


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
    log_probabilities = model.ctc_log_probabilities(encoded).cpu() if ctc is not None else None
    for row, (hypothesis, segment) in enumerate(zip(hypotheses, segments, strict=True)):
        words = spans(hypothesis.text)
        if not words:
            found.append(())
            continue
        tokens = token_spans(hypothesis, checkpoint.tokenizer, *([ctc] if ctc is not None else []))
        grid = Grid.of(model, segment.duration, int(encoded.lengths[row]))
        times = None
        if ctc is not None and log_probabilities is not None:
            times = ctc_times(log_probabilities[row, : grid.positions], ctc, hypothesis.text, words, grid)
        if times is None and model.decoder is not None:
            memory = Encoded(encoded.values[row : row + 1], encoded.lengths[row : row + 1])
            times = attention_times(checkpoint, memory, hypothesis, words, tokens, grid, options)
        if times is None:
            # More characters than positions: the text cannot be aligned, and is spread evenly.
            edges = np.linspace(0, segment.duration, len(words) + 1)
            times = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        confidences = word_confidences(model.configuration, hypothesis, words, tokens)
        found.append(
            tuple(
                Word(hypothesis.text[begin:end], segment.start + start, segment.start + stop, confidence)
                for (begin, end), (start, stop), confidence in zip(
                    words, sounding(orderly(times, segment.duration), segment.samples), confidences, strict=True
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


def attention_times(
    checkpoint: Checkpoint,
    encoded: Encoded,
    hypothesis: Hypothesis,
    words: Sequence[Span],
    tokens: Sequence[Span],
    grid: Grid,
    options: DecodingOptions,
) -> list[tuple[float, float]]:
    """Start and end of each word by the decoder's cross-attention, in seconds from the segment's start.

    Args:
        encoded: of this utterance alone, (1, positions, width).
        tokens: span of each token in the text.
    """
    decoder = cast(Decoder, checkpoint.model.decoder)
    prompt = [checkpoint.tokenizer.identifier(token) for token in (options.prompt or decoder.configuration.prompt)]
    room = decoder.configuration.maximum_length - len(prompt)
    written = hypothesis.tokens[:room]
    weights = DecoderWeights()
    inputs = torch.tensor([[*prompt, *written]], device=encoded.values.device)
    decoder(inputs, encoded.values, encoded.lengths, weights=weights)
    # A token is predicted in the row of the one before it; the last row predicts the stop token.
    rows = torch.cat(weights.cross_attention, dim=1)[0, :, len(prompt) - 1 :, : grid.positions].float().cpu()
    path = warp(-follow(rows).numpy())
    # Where each row begins; a row ends where the next one begins.
    starts = [grid.centre(position - 0.5) for position in path]
    starts.append(grid.centre(grid.positions))
    times = []
    for begin, end in words:
        own = tokens_of((begin, end), tokens[:room])
        times.append((starts[own[0]], starts[own[-1] + 1]) if own else (starts[-2], starts[-1]))
    return times


def follow(weights: Tensor) -> Tensor:
    """Attention of the heads that follow the speech, as one matrix: (heads, rows, positions) -> (rows, positions)."""
    normal = (weights - weights.mean(dim=1, keepdim=True)) / weights.std(dim=1, keepdim=True, unbiased=False).clamp(min=1e-6)
    half = _MEDIAN_WIDTH // 2
    padded = F.pad(normal, (half, half), mode="replicate")
    smooth = padded.unfold(2, _MEDIAN_WIDTH, 1).median(dim=-1).values
    chosen = order(weights).topk(min(_HEADS, len(weights))).indices
    return smooth[chosen].mean(dim=0)


def order(weights: Tensor) -> Tensor:
    """How well each head follows the speech: (heads, rows, positions) -> (heads,).

    The correlation of row and position under the head's weights: 1 for a straight diagonal.
    """
    _, rows, positions = weights.shape
    mass = weights / weights.sum(dim=(1, 2), keepdim=True).clamp(min=1e-9)
    row = torch.linspace(-1, 1, rows)[None, :, None]
    position = torch.linspace(-1, 1, positions)[None, None, :]

    def mean(values: Tensor) -> Tensor:
        return (mass * values).sum(dim=(1, 2))

    covariance = mean(row * position) - mean(row.expand_as(mass)) * mean(position.expand_as(mass))
    spread = (mean((row**2).expand_as(mass)) - mean(row.expand_as(mass)) ** 2).clamp(min=1e-9)
    width = (mean((position**2).expand_as(mass)) - mean(position.expand_as(mass)) ** 2).clamp(min=1e-9)
    return covariance / (spread * width).sqrt()


def warp(cost: NDArray[np.float32]) -> list[int]:
    """Dynamic time warping: at which column the cheapest path from corner to corner enters each row.

    The path steps one row down, one column to the right, or both (Sakoe and Chiba 1978).

    Args:
        cost: (rows, columns).
    """
    rows, columns = cost.shape
    total = np.empty((rows, columns))
    total[0] = np.cumsum(cost[0], dtype=np.float64)
    for row in range(1, rows):
        # total[j] = cost[j] + min(above[j], above[j - 1], total[j - 1]), the last resolved over the whole row at once:
        # with running sums s of the cost, total[j] - s[j] is the least of (entry[k] - s[k - 1]) over all k <= j.
        above = total[row - 1]
        entry = np.minimum(above, np.concatenate(([np.inf], above[:-1])))
        sums = np.cumsum(cost[row], dtype=np.float64)
        total[row] = sums + np.minimum.accumulate(entry - (sums - cost[row]))
    entered = [0] * rows
    row, column = rows - 1, columns - 1
    while row > 0:
        diagonal = total[row - 1, column - 1] if column else np.inf
        above, left = total[row - 1, column], total[row, column - 1] if column else np.inf
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
    starts = np.clip(starts, room, duration - shortest * (count - np.arange(count)))
    limits = np.append(starts[1:], duration)
    ends = np.clip(ends, starts + shortest, None)
    ends = np.minimum(ends, limits)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def sounding(times: Sequence[tuple[float, float]], samples: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Times without the pause that a word may begin or end with: the model can be sure of a letter long before it is heard.

    Nothing gets longer. Silence as short as that before a ``t`` belongs to its word; a word that is silent throughout, and
    words in loud noise, keep their times.

    Args:
        times: start and end of each word in seconds from the segment's start.
        samples: the segment, float32 at 16 kHz.
    """
    size = round(_FRAME_SECONDS * SAMPLE_RATE)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > _SILENT * power.max(initial=0.0))
    # Beyond the segment nobody speaks.
    bounds = np.concatenate(([-np.inf], loud, [np.inf]))
    found = []
    for start, end in times:
        first, last = start / _FRAME_SECONDS, end / _FRAME_SECONDS
        # The first frame of sound that ends after the word's start, the last one that begins before its end.
        begin = int(np.searchsorted(loud + 1, first, side="right")) + 1
        stop = int(np.searchsorted(loud, last, side="left"))
        if begin <= stop:
            if bounds[begin] - bounds[begin - 1] > _PAUSE_FRAMES:
                start = max(start, float(bounds[begin]) * _FRAME_SECONDS)
            if bounds[stop + 1] - bounds[stop] > _PAUSE_FRAMES:
                end = min(end, (float(bounds[stop]) + 1) * _FRAME_SECONDS)
        found.append((start, end))
    return found
