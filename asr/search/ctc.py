"""Search over the CTC head (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model.recognizer import Encoded, Recognizer
from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Spike:
    """A token of a path: the best of the positions that say it in a row, and its log-probability there."""

    token: int
    place: int
    log_probability: float


def spikes(path: Sequence[int], log_probabilities: Sequence[float], blank: int) -> list[Spike]:
    """The tokens of a path (positions,): repetitions are one, blanks are none.

    Args:
        path: token of each position.
        log_probabilities: its log-probability there.
        blank: the blank token.
    """
    found: list[Spike] = []
    for place, (token, value) in enumerate(zip(path, log_probabilities, strict=True)):
        if token == blank:
            continue
        again = place > 0 and path[place - 1] == token
        if not again:
            found.append(Spike(token, place, value))
        elif value > found[-1].log_probability:
            found[-1] = Spike(token, place, value)
    return found


def ctc_texts(log_probabilities: Tensor, lengths: Tensor, blank: int) -> list[list[Spike]]:
    """The texts of CTC's greedy paths, of its log-probabilities (batch, positions, tokens) with lengths int64 (batch,)."""
    scores, paths = log_probabilities.max(dim=-1)
    rows = zip(paths.tolist(), scores.tolist(), lengths.tolist(), strict=True)
    return [spikes(path[:length], score[:length], blank) for path, score, length in rows]


@torch.inference_mode()
def ctc_greedy_search(model: Recognizer, tokenizer: Tokenizer, encoded: Encoded) -> list[Hypothesis]:
    """Best path: at each position the most probable token; repetitions are merged, then blanks dropped.

    Args:
        model: recogniser with a CTC head.
        tokenizer: its tokenizer.
        encoded: the encoder's output.

    Returns:
        One hypothesis an utterance, in order; a token's log-probability is that of its first position.
    """
    log_probabilities = model.ctc_log_probabilities(encoded)
    scores, paths = log_probabilities.max(dim=-1)
    hypotheses = []
    for path, score, length in zip(paths.tolist(), scores.tolist(), encoded.lengths.tolist(), strict=True):
        path, score = path[:length], score[:length]
        kept = [n for n, token in enumerate(path) if token != tokenizer.blank and (n == 0 or token != path[n - 1])]
        tokens = tuple(path[n] for n in kept)
        hypotheses.append(Hypothesis(tokenizer.decode(tokens).strip(), tokens, tuple(score[n] for n in kept), sum(score), "stop"))
    return hypotheses
