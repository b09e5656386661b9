"""Estimate an n-gram model from text: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asr.exceptions import TrainingError
from asr.search.ngram import BEGIN, END, UNKNOWN, Level, Ngrams

_Integers = NDArray[np.int64]
_Floats = NDArray[np.float64]


def estimate(
    sentences: Iterable[Sequence[int]],
    tokens: Sequence[str],
    order: int,
    minimum_counts: Sequence[int] = (),
    unit: str = "token",
) -> Ngrams:
    """Count and smooth.

    Args:
        sentences: numbers in ``tokens``; begin and end are added here.
        tokens: the vocabulary with ``<s>``, ``</s>`` and ``<unk>`` in it.
        order: length of the longest n-grams.
        minimum_counts: for each length from 1, n-grams that occur less often are left out, and their probability goes
            to shorter contexts; the last counts for all longer ones, and single tokens all stay.
        unit: what the tokens are, ``token`` or ``word``.

    Raises:
        TrainingError: there is no text.
    """
    begin, end = tokens.index(BEGIN), tokens.index(END)
    text = np.fromiter((token for sentence in sentences for token in (begin, *sentence, end)), dtype=np.int64)
    if len(text) == 0:
        raise TrainingError("the text holds no sentence; give one sentence a line.")
    count = len(tokens)
    # Tokens until the end of the sentence, this one included: so long an n-gram can be that begins here.
    ends = np.flatnonzero(text == end)
    left = ends[np.searchsorted(ends, np.arange(len(text)))] - np.arange(len(text)) + 1

    # The n-gram at each place of the text, by its place in its level; grams (level) and raw counts (level).
    at: list[_Integers] = [text]
    keys: list[_Integers] = [np.arange(count)]
    raw: list[_Integers] = [np.bincount(text, minlength=count)]
    suffixes: list[_Integers] = [np.zeros(count, dtype=np.int64)]
    for size in range(2, order + 1):
        places = np.flatnonzero(left >= size)
        found = at[-1][places] * count + text[places + size - 1]
        unique, example, inverse, counts = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
        suffixes.append(at[-1][places[example] + 1])
        here = np.full(len(text), -1, dtype=np.int64)
        here[places] = inverse
        at.append(here)
        keys.append(unique)
        raw.append(counts)

    kept_before = np.arange(count)  # new place of each n-gram of the level before, -1 if it was left out
    probabilities: _Floats = np.zeros(0)
    levels: list[Level] = []
    for size in range(1, order + 1):
        adjusted = raw[size - 1].astype(np.float64)
        if size < order:
            # Shorter ones count how many different tokens they follow, but at the begin of a sentence there is none.
            different = np.bincount(suffixes[size], minlength=len(adjusted))
            first = _first(keys, size, count)
            adjusted = np.where(first == begin, adjusted, different)
        if size == 1:
            adjusted[begin] = 0.0
        parents = keys[size - 1] // count if size > 1 else np.zeros(count, dtype=np.int64)
        minimum = minimum_counts[min(size, len(minimum_counts)) - 1] if minimum_counts and size > 1 else 0
        stays = raw[size - 1] >= minimum
        discounts = _discounts(adjusted)
        discount = np.where(stays, discounts[np.minimum(adjusted, 3).astype(np.int64)], adjusted)
        total = np.bincount(parents, weights=adjusted)[parents]
        own = np.divide(adjusted - discount, total, out=np.zeros_like(adjusted), where=total > 0)
        rest_of = np.bincount(parents, weights=discount) / np.maximum(np.bincount(parents, weights=adjusted), 1e-300)
        # <s> is never said, everything else shares what the single tokens leave.
        lower = probabilities[suffixes[size - 1]] if size > 1 else np.full(count, 1 / (count - 1))
        values = own + rest_of[parents] * lower
        if size == 1:
            values[begin] = 0.0
        else:
            # What this level leaves is the weight of the level before; contexts that nothing follows have all of it.
            weights = np.ones(len(keys[size - 2]))
            weights[: len(rest_of)] = np.where(np.bincount(parents, weights=adjusted) > 0, rest_of, 1.0)
            levels[-1] = _with_backoffs(levels[-1], weights[np.flatnonzero(kept_before >= 0)])
        new_parents = kept_before[parents] if size > 1 else parents
        stays &= new_parents >= 0
        new_keys = (new_parents * count + keys[size - 1] % count)[stays]
        levels.append(_level(new_keys, values[stays]))
        kept_before = np.where(stays, np.cumsum(stays) - 1, -1)
        probabilities = values
    return Ngrams(tuple(tokens), tuple(levels), unit)


def vocabulary(tokens: Iterable[str]) -> tuple[str, ...]:
    """A model's tokens: the special ones, then the given."""
    return (BEGIN, END, UNKNOWN, *tokens)


def _first(keys: list[_Integers], size: int, count: int) -> _Integers:
    """First token of each n-gram of a level."""
    first = keys[size - 1]
    for level in range(size - 1, 0, -1):
        first = first // count
        first = keys[level - 1][first]
    return first % count


def _discounts(adjusted: _Floats) -> _Floats:
    """What is taken off counts of 0, 1, 2 and more (Chen and Goodman 1998, equation 26)."""
    once, twice, thrice, four = (float(np.sum(adjusted == number)) for number in (1, 2, 3, 4))
    if not once or not twice:
        return np.array([0.0, 0.5, 0.5, 0.5])
    shrink = once / (once + 2 * twice)
    values = [0.0, 1 - 2 * shrink * twice / once, 2 - 3 * shrink * thrice / twice, 3 - 4 * shrink * four / max(thrice, 1)]
    return np.clip(values, 0.0, [0.0, 1.0, 2.0, 3.0])


def _level(keys: _Integers, values: _Floats) -> Level:
    with np.errstate(divide="ignore"):
        logarithms = torch.from_numpy(np.log(values).clip(-230)).float()
    return Level(torch.from_numpy(keys), logarithms, torch.zeros(len(keys)))


def _with_backoffs(level: Level, weights: _Floats) -> Level:
    return Level(level.keys, level.log_probabilities, torch.from_numpy(np.log(weights.clip(1e-100))).float())
