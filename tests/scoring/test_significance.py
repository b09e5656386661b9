"""Intervals against closed forms, and the matched-pairs test against NIST's own and a hand-worked example."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asr.exceptions import ScoringError
from asr.scoring.alignment import align
from asr.scoring.significance import bootstrap, matched_pairs, paired_bootstrap, segments


def test_interval_equals_the_closed_form_for_equal_lengths() -> None:
    # With equal lengths the rate is a mean, and the bootstrap's variance of a mean is the sample's over n.
    draw = np.random.default_rng(3)
    errors = draw.binomial(20, 0.15, size=2000)
    interval = bootstrap(errors, np.full(2000, 20), samples=20_000)
    expected = errors.std() / math.sqrt(2000) / 20
    mean = errors.sum() / 40_000
    assert interval.standard_error == pytest.approx(expected, rel=0.02)
    assert interval.low == pytest.approx(mean - 1.96 * expected, abs=0.06 * expected)
    assert interval.high == pytest.approx(mean + 1.96 * expected, abs=0.06 * expected)
    assert (interval.drawn, interval.units) == ("utterances", 2000)


def test_interval_of_unequal_lengths_equals_the_ratio_estimators() -> None:
    draw = np.random.default_rng(4)
    lengths = draw.integers(1, 60, size=3000)
    errors = draw.binomial(lengths, 0.2)
    rate = errors.sum() / lengths.sum()
    expected = np.sqrt(((errors - rate * lengths) ** 2).sum()) / lengths.sum()
    assert bootstrap(errors, lengths).standard_error == pytest.approx(expected, rel=0.03)


def test_utterances_that_are_drawn_together_are_drawn_right() -> None:
    # The slow way: draw each utterance by its place.
    draw = np.random.default_rng(5)
    lengths = draw.integers(1, 5, size=60)
    errors = draw.integers(0, 3, size=60)
    places = np.random.default_rng(9).integers(0, 60, size=(20_000, 60))
    rates = errors[places].sum(axis=1) / lengths[places].sum(axis=1)
    interval = bootstrap(errors, lengths, samples=20_000)
    assert interval.low == pytest.approx(np.percentile(rates, 2.5), abs=0.01)
    assert interval.high == pytest.approx(np.percentile(rates, 97.5), abs=0.01)
    assert interval.standard_error == pytest.approx(rates.std(), rel=0.03)


def test_speakers_are_drawn_whole() -> None:
    # Ten speakers, each all right or all wrong: the rate is a share of ten fair coins, by the binomial distribution.
    errors = np.repeat([0, 10] * 5, 30)
    speakers = [f"s{k // 30}" for k in range(300)]
    by_speaker = bootstrap(errors, np.full(300, 10), speakers, samples=20_000)
    assert by_speaker.standard_error == pytest.approx(math.sqrt(0.25 / 10), rel=0.03)
    assert (by_speaker.low, by_speaker.high) == tuple(stats.binom.ppf([0.025, 0.975], 10, 0.5) / 10)
    assert by_speaker.units == 10
    assert bootstrap(errors, np.full(300, 10)).standard_error < 0.3 * by_speaker.standard_error


def test_same_seed_same_interval_and_memory_is_cut_into_steps() -> None:
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 1000, size=5000)
    errors = draw.binomial(lengths, 0.1)
    assert bootstrap(errors, lengths, seed=7, samples=1000) == bootstrap(errors, lengths, seed=7, samples=1000)
    assert bootstrap(errors, lengths, seed=7, samples=1000) != bootstrap(errors, lengths, seed=8, samples=1000)


def test_paired_difference_agrees_with_the_normal_test() -> None:
    draw = np.random.default_rng(6)
    first = draw.binomial(20, 0.15, size=1500)
    second = np.maximum(0, first - draw.binomial(1, 0.12, size=1500) + draw.binomial(1, 0.10, size=1500))
    result = paired_bootstrap(first, second, np.full(1500, 20), samples=20_000)
    change = (second - first) / 20
    z = change.mean() / (change.std() / math.sqrt(1500))
    assert result.difference == pytest.approx(change.mean())
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)
    assert result.probability_of_improvement == pytest.approx(stats.norm.cdf(-z), abs=0.02)
    assert result.low < result.difference < result.high


def test_the_same_system_twice_is_no_difference() -> None:
    result = paired_bootstrap([1, 2, 3], [1, 2, 3], [5, 5, 5])
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_empty_references_and_bad_input() -> None:
    assert bootstrap([2, 2], [0, 0]).low == 4.0  # without a reference the rate is the number of insertions
    with pytest.raises(ScoringError, match="no utterances"):
        bootstrap([], [])
    with pytest.raises(ScoringError, match="differ in number"):
        bootstrap([1], [1, 2])


REFERENCE = ["a b c d e f g h", "i j k l m n", "o p q r", "s t u v w x y z a b", "c d e", "f g h i j k l"]
FIRST = ["a x c d e f g h", "i j k l m n", "o p r", "s t u v v w x z a b", "c d e", "g h i j x l"]
SECOND = ["a b c d f g h", "i x k l m y", "o p q r", "s t u v w x y z a c", "d e", "f g h i j k"]


def segments_of(references: list[str], first: list[str], second: list[str]) -> list[tuple[int, int]]:
    return [
        pair
        for r, a, b in zip(references, first, second, strict=True)
        for pair in segments(align(r.split(), a.split(), "sclite"), align(r.split(), b.split(), "sclite"))
    ]


def test_segments_by_hand() -> None:
    # 1: x is wrong in the first, e missing in the second, two good words (c d) between: two segments.
    # 2: x and y, two good words (k l) and m between. 3: q. 4: the inserted v, then y (w x between), then c (z a).
    # 5: c. 6: f of the first; x and the missing l are neighbours: one segment.
    assert segments_of(REFERENCE, FIRST, SECOND) == [
        (1, 0),
        (0, 1),
        (0, 1),
        (0, 1),
        (1, 0),
        (1, 0),
        (1, 0),
        (0, 1),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


def test_one_good_word_does_not_part_segments() -> None:
    assert segments_of(["a b c"], ["x b y"], ["a b c"]) == [(2, 0)]
    assert segments_of(["a b c d"], ["x b c y"], ["a b c d"]) == [(1, 0), (1, 0)]
    assert segments_of(["a b c d"], ["x b c y"], ["a b z c d"]) == [(2, 1)]  # an insertion breaks the good words
    assert segments_of(["a b c d"], ["x b c y"], ["a q c d"]) == [(2, 1)]
    assert segments_of(["a b"], ["a b"], ["a b"]) == []
    assert segments_of([""], ["x"], [""]) == [(1, 0)]


def test_matched_pairs_by_hand() -> None:
    # Differences 1, 1, -1, 2: mean 3/4, variance (2/16 + 49/16 + 25/16)/3 = 19/12, z = (3/4)/(sqrt(19/12)/2).
    result = matched_pairs([(2, 1), (1, 0), (0, 1), (3, 1)])
    assert result.segments == 4
    assert result.mean == 0.75
    assert result.standard_deviation == pytest.approx(math.sqrt(19 / 12))
    assert result.z == pytest.approx(1.1920791)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(1.1920791), abs=1e-6)
    assert matched_pairs([]).p_value == 1
    assert matched_pairs([(3, 1)]).p_value == 1


def corrupted(draw: random.Random, words: list[str], vocabulary: list[str], rate: float) -> list[str]:
    """The generator of the data on which sc_stats was run; its draws must stay as they are."""
    result = []
    for word in words:
        x = draw.random()
        if x < rate * 0.5:
            result.append(draw.choice(vocabulary))
        elif x >= rate * 0.8:
            result.append(word)
            if x > 1 - rate * 0.2:
                result.append(draw.choice(vocabulary))
    return result


def test_matched_pairs_equal_what_sc_stats_found() -> None:
    # sc_stats 1.3: "# segs: 344", "mean: -0.221", "std dev: 1.328", "Z Stat: -3.085", p 0.002, on these 120 utterances.
    draw = random.Random(7)
    vocabulary = [f"w{k}" for k in range(30)]
    references = [[draw.choice(vocabulary) for _ in range(draw.randint(5, 25))] for _ in range(120)]
    first = [corrupted(draw, words, vocabulary, 0.2) for words in references]
    second = [corrupted(draw, words, vocabulary, 0.25) for words in references]
    joined = [[" ".join(words) for words in texts] for texts in (references, first, second)]
    result = matched_pairs(segments_of(*joined))
    assert result.segments == 344
    assert (round(result.mean, 3), round(result.standard_deviation, 3), round(result.z, 3)) == (-0.221, 1.328, -3.085)
    assert round(result.p_value, 3) == 0.002


texts = st.lists(st.sampled_from("abc"), max_size=10)


@settings(max_examples=150)
@given(texts, texts, texts)
def test_segments_hold_all_errors_and_are_symmetric(r: list[str], a: list[str], b: list[str]) -> None:
    first, second = align(r, a), align(r, b)
    found = list(segments(first, second))
    assert sum(x for x, _ in found) == first.counts.errors
    assert sum(y for _, y in found) == second.counts.errors
    assert [(y, x) for x, y in found] == list(segments(second, first))
    assert all(x or y for x, y in found)
