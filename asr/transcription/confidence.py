"""How sure the model is of a word, as a probability that holds: calibrated on speech that was held aside."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.model.configuration import ModelConfiguration
from asr.search.hypothesis import Hypothesis
from asr.transcription.words import Span, letters, tokens_of


def word_confidences(
    configuration: ModelConfiguration, hypothesis: Hypothesis, words: Sequence[Span], tokens: Sequence[Span]
) -> list[float]:
    """Confidence of each word: the probability of its tokens, then the model's calibration."""
    return [calibrated(configuration, score) for score in word_scores(hypothesis, words, tokens)]


def word_scores(hypothesis: Hypothesis, words: Sequence[Span], tokens: Sequence[Span]) -> list[float]:
    """Log-probability of each word: the sum over the tokens of its letters, given all that stands before them.

    Whether a comma follows says nothing about the word.
    """
    found = []
    for word in words:
        own = tokens_of(letters(hypothesis.text, word), tokens)
        found.append(min(sum(hypothesis.log_probabilities[number] for number in own), 0.0))
    return found


def log_odds(score: float) -> float:
    """Log-odds of a log-probability, within what a probability of 0.000001 to 0.999999 has."""
    probability = min(max(math.exp(score), 1e-6), 1 - 1e-6)
    return math.log(probability / (1 - probability))


def calibrated(configuration: ModelConfiguration, score: float) -> float:
    """Probability that a word with this log-probability is right (Platt 1999: a logistic function of the log-odds)."""
    calibration = configuration.confidence
    return 1 / (1 + math.exp(-(calibration.slope * log_odds(score) + calibration.offset)))
