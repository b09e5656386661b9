"""Greedy search over the autoregressive decoder: at each step the most probable token, until the stop token.

Of a single utterance a step takes as long as it takes to read the weights, with several tokens hardly longer than with one. Where
the model has a draft, the decoder reads with each token what may follow it; what it would have written itself stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from asr.model.decoder import Decoder
from asr.model.draft import Guesser
from asr.model.recognizer import Encoded, Recognizer
from asr.search.bounds import Heard, length_bound, repetition, shortest_text, silent_or_not, without_stop
from asr.search.hypothesis import FinishReason, Hypothesis
from asr.text.tokenizer import Tokenizer

GUESSES = 4
"""Tokens that are guessed at most, one after another."""
LIKELY = 0.35
"""The probability of a guess from which on it is worth reading."""


@torch.inference_mode()
def greedy_search(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    prompt: Sequence[str] | None = None,
    heard: Sequence[Heard] | None = None,
    minimum_length: float = 0.0,
    guesser: Guesser | None = None,
) -> list[Hypothesis]:
    """Decode a batch; each step reads one token an utterance, and finished utterances leave the batch.

    Args:
        model: recogniser with a decoder.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        prompt: start tokens instead of the model's own.
        heard: for each utterance, what CTC knows of repetitions.
        minimum_length: a text ends with so many tokens for each of the encoder's positions at the earliest.
        guesser: the decoder's draft, asked while a single utterance is left.

    Returns:
        One hypothesis an utterance, in order.
    """
    decoder = cast(Decoder, model.decoder)
    settings = decoder.configuration
    start = [tokenizer.identifier(token) for token in (prompt or settings.prompt)]
    device = encoded.values.device
    bounds = [length_bound(model, int(samples), len(start)) for samples in sample_lengths]
    shortest = [
        shortest_text(minimum_length, positions, bound) for positions, bound in zip(encoded.lengths.tolist(), bounds, strict=True)
    ]
    emitted: list[list[int]] = [[] for _ in bounds]
    scores: list[list[float]] = [[] for _ in bounds]
    reasons: list[FinishReason] = ["length" for _ in bounds]
    totals = [0.0 for _ in bounds]

    forbidden_first, forbidden = forbidden_tokens(decoder, len(tokenizer), device)

    cache = decoder.cache()
    active = list(range(len(bounds)))  # the utterance of each row
    tokens = torch.tensor(start, device=device).repeat(len(bounds), 1)
    running = set(active)
    guesses: list[int] = []
    step = 0
    while running:
        states = decoder.states(tokens, encoded.values, encoded.lengths, cache)[:, -1 - len(guesses) :]
        spoken = (decoder.scores(states) + (forbidden if step else forbidden_first)).log_softmax(dim=-1)
        for place, guess in enumerate([*guesses, None]):
            short = [step < shortest[utterance] for utterance in active]
            log_probabilities = spoken[:, place]
            if step == 0:
                log_probabilities = silent_or_not(log_probabilities, tokenizer.stop, settings.no_speech_threshold, short)
            best, chosen = without_stop(log_probabilities, tokenizer.stop, short).max(dim=-1)
            for utterance, token, score in zip(active, chosen.tolist(), best.tolist(), strict=True):
                if utterance not in running:
                    continue
                totals[utterance] += score
                if token == tokenizer.stop:
                    reasons[utterance] = "stop"
                    running.discard(utterance)
                    continue
                emitted[utterance].append(token)
                scores[utterance].append(score)
                excess = repetition(emitted[utterance], heard[utterance] if heard else None)
                if excess:
                    reasons[utterance] = "repetition"
                    del emitted[utterance][-excess:], scores[utterance][-excess:]
                if excess or len(emitted[utterance]) >= bounds[utterance]:
                    running.discard(utterance)
            step += 1
            if not running or int(chosen[0]) != guess:
                break
        tokens = chosen[:, None]
        # Leaving copies what the others remember, so it waits until a quarter of the rows is done.
        if running and len(running) <= 0.75 * len(active):
            rows = torch.tensor([row for row, utterance in enumerate(active) if utterance in running], device=device)
            active = [utterance for utterance in active if utterance in running]
            cache.select(rows)
            encoded = Encoded(encoded.values[rows], encoded.lengths[rows])
            states, tokens = states[rows], tokens[rows]
        if guesser is not None and len(active) == 1 and running:
            # Of the guesses only those that were right have been read.
            cache.truncate(len(start) + step - 1)
            memory = decoder.memory(cache, 0, int(encoded.lengths[0]))
            room = min(GUESSES, bounds[active[0]] - step - 1)
            guesses = guesser.guess(states[0, place], int(tokens), memory, room, LIKELY, tokenizer.stop)
            tokens = torch.tensor([[int(tokens), *guesses]], device=device)
    return [
        Hypothesis(tokenizer.decode(found).strip(), tuple(found), tuple(each), total, reason)
        for found, each, total, reason in zip(emitted, scores, totals, reasons, strict=True)
    ]


def forbidden_tokens(decoder: Decoder, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is added to the scores of the first and of every later token: minus infinity where one may not be emitted.

    Two tensors float32 (vocabulary,).
    """
    later = torch.zeros(vocabulary, device=device)
    later[list(decoder.configuration.suppressed)] = float("-inf")
    first = later.clone()
    first[list(decoder.configuration.suppressed_at_start)] = float("-inf")
    return first, later
