"""How far a measured error rate can be trusted, and whether two systems really differ.

Bootstrap: M. Bisani and H. Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
2004. Matched pairs: L. Gillick and S. Cox, "Some statistical issues in the comparison of speech recognition
algorithms", ICASSP 1989, with segments as in NIST's scoring toolkit (sctk).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.exceptions import ScoringError
from asr.scoring.alignment import Alignment

# Words in a row that both systems have right, between two segments that are taken as independent.
GOOD_WORDS = 2
# Numbers drawn at a time, so that memory does not grow with the number of samples.
_DRAWN = 4_000_000
# Above this many distinct utterances the default is 1,000 samples instead of 10,000.
_MANY = 20_000

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of an error rate, as fractions.

    Attributes:
        low: lower end.
        high: upper end.
        confidence: probability that it covers, 0.95 for a 95 % interval.
        standard_error: standard deviation of the resampled rates.
        drawn: what was drawn, ``utterances`` or ``speakers``.
        units: how many there are to draw from.
        samples: how many sets were drawn.
    """

    low: float
    high: float
    confidence: float
    standard_error: float
    drawn: str
    units: int
    samples: int


@dataclass(frozen=True)
class PairedBootstrap:
    """Difference of two systems' rates over the same resampled utterances.

    Attributes:
        difference: rate of the second system minus rate of the first.
        low: lower end of its interval.
        high: upper end.
        confidence: of the interval.
        p_value: two-sided, for the hypothesis that the rates are equal.
        probability_of_improvement: share of the drawn sets in which the second system has the lower rate.
        drawn: ``utterances`` or ``speakers``.
        units: how many there are to draw from.
        samples: how many sets were drawn.
    """

    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    probability_of_improvement: float
    drawn: str
    units: int
    samples: int


@dataclass(frozen=True)
class MatchedPairs:
    """Matched-pairs sentence-segment test of word errors (MAPSSWE).

    Attributes:
        segments: segments with an error of at least one system.
        mean: mean over segments of the first system's errors minus the second's.
        standard_deviation: of those differences (n - 1).
        z: mean divided by its standard error; positive when the second system makes fewer errors.
        p_value: two-sided, from the normal distribution.
    """

    segments: int
    mean: float
    standard_deviation: float
    z: float
    p_value: float


def bootstrap(
    errors: Sequence[int] | Integers,
    lengths: Sequence[int] | Integers,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    samples: int | None = None,
    seed: int = 0,
) -> Interval:
    """Percentile interval of an error rate by drawing utterances, or speakers, with replacement.

    Utterances of one speaker fail together, so that drawing speakers gives the wider and more honest interval.

    Args:
        errors: errors of each utterance.
        lengths: reference units of each utterance.
        groups: speaker of each utterance; whole speakers are drawn then.
        confidence: of the interval.
        samples: sets to draw; by default 10,000, or 1,000 for more than 20,000 distinct utterances.
        seed: of the random generator; the same seed gives the same interval.

    Raises:
        ScoringError: there is nothing to draw from, or the sequences differ in length.
    """
    table, units = _grouped([errors, lengths], groups)
    resampled, drawn_samples = _resample(table, units, samples, seed)
    rates = _rates(resampled[:, 0], resampled[:, 1])
    low, high = _percentiles(rates, confidence)
    return Interval(low, high, confidence, float(rates.std()), _drawn(groups), units, drawn_samples)


def paired_bootstrap(
    first: Sequence[int] | Integers,
    second: Sequence[int] | Integers,
    lengths: Sequence[int] | Integers,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    samples: int | None = None,
    seed: int = 0,
) -> PairedBootstrap:
    """Interval and two-sided p-value of the difference of two systems scored on the same utterances.

    The p-value is twice the smaller share of drawn sets on one side of no difference, with one set added to both
    counts so that it is never 0 (A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", 1997,
    section 4.2).

    Args:
        first: errors of the first system by utterance.
        second: errors of the second system by utterance.
        lengths: reference units by utterance.
        groups: as ``bootstrap``.
        confidence: as ``bootstrap``.
        samples: as ``bootstrap``.
        seed: as ``bootstrap``.

    Raises:
        ScoringError: as ``bootstrap``.
    """
    table, units = _grouped([first, second, lengths], groups)
    total = table.sum(axis=0, keepdims=True)
    difference = float((_rates(total[:, 1], total[:, 2]) - _rates(total[:, 0], total[:, 2]))[0])
    resampled, drawn_samples = _resample(table, units, samples, seed)
    differences = _rates(resampled[:, 1], resampled[:, 2]) - _rates(resampled[:, 0], resampled[:, 2])
    low, high = _percentiles(differences, confidence)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return PairedBootstrap(
        difference=difference,
        low=low,
        high=high,
        confidence=confidence,
        p_value=min(1.0, 2 * (tail + 1) / (drawn_samples + 1)),
        probability_of_improvement=float((differences < 0).mean()),
        drawn=_drawn(groups),
        units=units,
        samples=drawn_samples,
    )


def segments(first: Alignment, second: Alignment, good_words: int = GOOD_WORDS) -> Iterator[tuple[int, int]]:
    """Errors of both systems in each segment of one utterance.

    A segment begins with an error of either system and ends before ``good_words`` reference words in a row that both
    have right with nothing inserted between, or with the utterance. As in sctk, but for an insertion of the second
    system alone behind the last word, which sctk overlooks.

    Yields:
        Errors of the first and of the second system, not both 0.
    """
    length = len(first.reference)
    errors = np.zeros((2, 2 * length + 1), dtype=np.int64)  # insertions before each word, the word, …, and at the end
    for row, alignment in enumerate((first, second)):
        for mark, i, i_end, j, j_end in alignment.chunks:
            if mark == "I":
                errors[row, 2 * i] += j_end - j
            elif mark != "C":
                errors[row, 2 * i + 1 : 2 * i_end : 2] = 1
    if not errors.any():
        return
    places = np.flatnonzero(errors.any(axis=0))
    # Words that both have right between two errors: word k stands at 2 k + 1, the insertions before it at 2 k.
    words = places[1:] // 2 - (places[:-1] + 1) // 2
    starts = np.concatenate([[0], np.flatnonzero(words >= good_words) + 1])
    sums = np.add.reduceat(errors[:, places], starts, axis=1)
    yield from zip(sums[0].tolist(), sums[1].tolist(), strict=True)


def matched_pairs(segment_errors: Sequence[tuple[int, int]] | Integers) -> MatchedPairs:
    """MAPSSWE over the segments of all utterances.

    Args:
        segment_errors: errors of the first and the second system in each segment, as ``segments`` gives them.
    """
    pairs = np.asarray(segment_errors, dtype=np.float64).reshape(-1, 2)
    differences = pairs[:, 0] - pairs[:, 1]
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    deviation = float(differences.std(ddof=1)) if count > 1 else 0.0
    z = mean / (deviation / math.sqrt(count)) if deviation else 0.0
    # Segments that all differ by the same amount, or a single one, have no spread to test against: p is 1, as in sctk.
    return MatchedPairs(count, mean, deviation, z, math.erfc(abs(z) / math.sqrt(2)))


def _grouped(columns: list[Sequence[int] | Integers], groups: Sequence[str] | None) -> tuple[Integers, int]:
    """One row for each unit to draw, and how many there are."""
    lengths = {len(column) for column in columns} | ({len(groups)} if groups is not None else set())
    if len(lengths) != 1:
        raise ScoringError(f"errors, lengths and speakers differ in number ({sorted(lengths)}); give one per utterance.")
    table = np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)
    if not len(table):
        raise ScoringError("there are no utterances to draw from; give at least one.")
    if groups is not None:
        names, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
        sums = np.zeros((len(names), table.shape[1]), dtype=np.int64)
        np.add.at(sums, place, table)
        table = sums
    return table, len(table)


def _resample(table: Integers, units: int, samples: int | None, seed: int) -> tuple[Floats, int]:
    """Column sums of sets drawn with replacement, ``(samples, columns)``.

    Rows that are equal are drawn together: how often each distinct row comes up in ``units`` draws is multinomial,
    which is the same distribution for a fraction of the work.
    """
    distinct, multiplicity = np.unique(table, axis=0, return_counts=True)
    if samples is None:
        samples = 10_000 if len(distinct) <= _MANY else 1_000
    generator = np.random.default_rng(seed)
    probabilities = multiplicity / units
    sums = np.empty((samples, table.shape[1]), dtype=np.float64)
    step = max(1, _DRAWN // len(distinct))
    for start in range(0, samples, step):
        stop = min(samples, start + step)
        sums[start:stop] = generator.multinomial(units, probabilities, size=stop - start) @ distinct.astype(np.float64)
    return sums, samples


def _rates(errors: Floats | Integers, lengths: Floats | Integers) -> Floats:
    """Error rates; without reference units the number of errors, as ``ErrorCounts.rate``."""
    return np.asarray(errors / np.where(lengths > 0, lengths, 1), dtype=np.float64)


def _percentiles(values: Floats, confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _drawn(groups: Sequence[str] | None) -> str:
    return "utterances" if groups is None else "speakers"
