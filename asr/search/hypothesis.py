"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "repetition"]


@dataclass(frozen=True)
class Hypothesis:
    """The text of one utterance and how the search came to it.

    Attributes:
        text: decoded text.
        tokens: emitted tokens, without start and stop.
        log_probabilities: natural logarithm of each emitted token's probability.
        score: what the search ranks by; greedy: sum of the log-probabilities, stop token included.
        finish_reason: ``stop`` token, bound on the ``length``, or ``repetition`` of the same tokens.
        times: for each token, seconds from the utterance's start, where the search knows them.
        alternatives: the other hypotheses of the n best, in order.
    """

    text: str
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float
    finish_reason: FinishReason
    times: tuple[float, ...] | None = None
    alternatives: tuple[Hypothesis, ...] = ()
