"""What keeps a search from running away: the longest and shortest text of an utterance, and loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from asr.audio.files import SAMPLE_RATE
from asr.model.decoder import Decoder
from asr.model.recognizer import Recognizer

# A pattern of up to so many tokens, said so many times in a row, is a loop and not speech.
_LONGEST_PATTERN = 32
_SHORTEST_LOOP = 12
_REPEATS = 4

# How many times in a row CTC heard the pattern in its own text.
Heard = Callable[[Sequence[int]], int]


def length_bound(model: Recognizer, samples: int, prompt_length: int) -> int:
    """Most tokens that an utterance of so many samples may have, from the model's tokens a second."""
    decoder = cast(Decoder, model.decoder)
    settings = decoder.configuration
    spoken = 8 + int(settings.tokens_per_second * samples / SAMPLE_RATE)
    return max(1, min(spoken, settings.maximum_length - prompt_length))


def shortest_text(share: float, positions: int, bound: int) -> int:
    """Fewest tokens of an utterance of so many encoder positions: ``share`` of them, but never more than its bound."""
    return min(int(share * positions), bound)


def without_stop(spoken: Tensor, stop: int, short: Sequence[bool]) -> Tensor:
    """Log-probabilities (rows, vocabulary) in which the texts that are too ``short`` cannot end.

    The other tokens keep theirs, so that a text's score is what it is without a shortest length.
    """
    if not any(short):
        return spoken
    spoken = spoken.clone()
    spoken[[row for row, each in enumerate(short) if each], stop] = float("-inf")
    return spoken


def silent_or_not(spoken: Tensor, stop: int, threshold: float | None, short: Sequence[bool]) -> Tensor:
    """Log-probabilities (rows, vocabulary) of the first token in which a text is empty from ``threshold`` on, and only then.

    Whether anything is said is asked of the decoder before what is said, as Whisper asks for its probability of no
    speech (Radford et al. 2022, section 4.5): against the many beginnings of a text that is hard to hear, the stop token
    wins though it is improbable, and against one hallucination it loses. What is not forbidden keeps its log-probability.

    Args:
        spoken: log-probabilities.
        stop: the stop token.
        threshold: its least probability where nothing is said; None: it is a token like any other.
        short: of each row, whether its text may not be empty.
    """
    if threshold is None:
        return spoken
    silent = (spoken[:, stop].exp() >= threshold) & ~torch.tensor(short, device=spoken.device)
    stops = torch.arange(spoken.shape[1], device=spoken.device) == stop
    return spoken.masked_fill(stops != silent[:, None], float("-inf"))


def without_unlikely_stop(spoken: Tensor, stop: int, threshold: float | None) -> Tensor:
    """Log-probabilities (rows, vocabulary) in which a text cannot end where its decoder would rather go on.

    A language model knows ends of sentences, not whether anybody still speaks, and each token that is left out spares a text
    its cost; so the decoder alone says whether a text may end (A. Hannun et al.: Sequence-to-sequence speech recognition with
    time-depth separable convolutions, Interspeech 2019).

    Args:
        spoken: log-probabilities.
        stop: the stop token.
        threshold: it stays where it is above this times the log-probability of the likeliest other token; None: always.
    """
    if threshold is None:
        return spoken
    found = spoken.clone()
    found[:, stop] = float("-inf")
    others = found.amax(dim=1)
    # Where nothing else may follow it stays.
    unlikely = (spoken[:, stop] < threshold * others) & (others > float("-inf"))
    found[:, stop] = spoken[:, stop].masked_fill(unlikely, float("-inf"))
    return found


def repetition(tokens: Sequence[int], heard: Heard | None = None) -> int:
    """How many tokens at the end say again what stands before them, 0 if they are not a loop.

    A loop is a pattern of at most 32 tokens repeated at least 4 times and over at least 12 tokens, and more often than
    CTC heard it; all repetitions are the excess but the first, or those that were heard.

    Args:
        tokens: what was emitted so far.
        heard: asked for patterns that would be a loop, where the model has a CTC head.
    """
    if not tokens or sum(token == tokens[-1] for token in tokens) < _REPEATS:
        return 0
    for length in range(1, min(_LONGEST_PATTERN, len(tokens) // _REPEATS) + 1):
        repeats = max(_REPEATS, -(-_SHORTEST_LOOP // length))
        if len(tokens) < length * repeats:
            continue
        pattern = tokens[-length:]
        if all(tokens[-length * (n + 1) : len(tokens) - length * n] == pattern for n in range(1, repeats)):
            if heard is None:
                return length * (repeats - 1)
            while tokens[-length * (repeats + 1) : len(tokens) - length * repeats] == pattern:
                repeats += 1
            # One more is forgiven: where a pattern begins is not known, so that CTC may hear it once less.
            known = heard(pattern) + 1
            return length * (repeats - known) if repeats > known else 0
    return 0
