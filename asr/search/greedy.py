"""Greedy search over the autoregressive decoder: at each step the most probable token, until the stop token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded, Recognizer
from asr.search.bounds import Heard, length_bound, repetition, shortest_text, silent_or_not, without_stop
from asr.search.hypothesis import FinishReason, Hypothesis
from asr.text.tokenizer import Tokenizer


@torch.inference_mode()
def greedy_search(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    prompt: Sequence[str] | None = None,
    heard: Sequence[Heard] | None = None,
    minimum_length: float = 0.0,
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
    step = 0
    while running:
        logits = decoder(tokens, encoded.values, encoded.lengths, cache, last_only=True)[:, -1]
        log_probabilities = (logits + (forbidden if step else forbidden_first)).log_softmax(dim=-1)
        short = [step < shortest[utterance] for utterance in active]
        if step == 0:
            log_probabilities = silent_or_not(log_probabilities, tokenizer.stop, settings.no_speech_threshold, short)
        best, chosen = without_stop(log_probabilities, tokenizer.stop, short).max(dim=-1)
        tokens = chosen[:, None]
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
        # Leaving copies what the others remember, so it waits until a quarter of the rows is done.
        if running and len(running) <= 0.75 * len(active):
            rows = torch.tensor([row for row, utterance in enumerate(active) if utterance in running], device=device)
            active = [utterance for utterance in active if utterance in running]
            cache.select(rows)
            encoded = Encoded(encoded.values[rows], encoded.lengths[rows])
            tokens = tokens[rows]
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
