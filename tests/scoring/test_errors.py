"""Counts of a set against jiwer."""

from __future__ import annotations

import random

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import ScoringError
from asr.scoring.errors import count, score_systems

texts = st.text(alphabet="ab c", max_size=12)


def test_ten_thousand_random_pairs_count_as_jiwer_counts() -> None:
    draw = random.Random(0)
    vocabulary = [f"w{k}" for k in range(40)]
    references, hypotheses = {}, {}
    for k in range(10_000):
        reference = draw.choices(vocabulary, k=draw.randint(0, 20))
        hypothesis = [draw.choice(vocabulary) if draw.random() < 0.2 else w for w in reference if draw.random() > 0.1]
        references[str(k)] = " ".join(reference)
        hypotheses[str(k)] = " ".join(hypothesis + draw.choices(vocabulary, k=draw.choice([0, 0, 0, 1, 3])))
    score = count(references, hypotheses)
    whole = jiwer.process_words(list(references.values()), list(hypotheses.values()))
    assert (score.total.correct, score.total.substitutions, score.total.deletions, score.total.insertions) == (
        whole.hits,
        whole.substitutions,
        whole.deletions,
        whole.insertions,
    )
    assert score.rate == pytest.approx(whole.wer, abs=1e-15)
    wrong = 0
    for name in references:
        one = jiwer.process_words(references[name], hypotheses[name])
        counts = score.utterances[name]
        assert (counts.correct, counts.substitutions, counts.deletions, counts.insertions) == (
            one.hits,
            one.substitutions,
            one.deletions,
            one.insertions,
        )
        wrong += one.substitutions + one.deletions + one.insertions > 0
    assert score.sentence_error_rate == wrong / 10_000


@settings(max_examples=200)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_characters_count_as_jiwer_counts_them(pairs: list[tuple[str, str]]) -> None:
    clean = [(" ".join(a.split()), " ".join(b.split())) for a, b in pairs]
    score = count({str(k): a for k, (a, _) in enumerate(pairs)}, {str(k): b for k, (_, b) in enumerate(pairs)}, unit="char")
    theirs = jiwer.process_characters([a for a, _ in clean], [b for _, b in clean])
    assert score.rate == pytest.approx(theirs.cer)
    assert score.total.correct == theirs.hits


def test_mandarin_is_scored_without_spaces() -> None:
    score = count({"a": "今天 天气 不错"}, {"a": "今天天气布错。"}, unit="char", normalizer="mandarin")
    assert (score.total.reference_length, score.total.substitutions, score.total.errors) == (6, 1, 1)
    assert score.normalizer == "mandarin"
    assert "opencc" in score.normalizer_version


def test_mixed_units_are_characters_and_whole_latin_words() -> None:
    score = count(
        {"a": "我想看 machine learning 的 12 本书"},
        {"a": "我想看machine burning的12本书"},
        unit="mixed",
        normalizer="mandarin",
    )
    assert (score.total.reference_length, score.total.substitutions, score.total.errors) == (10, 1, 1)
    assert score.rate_name == "MER"


def test_english_differences_of_writing_are_no_errors() -> None:
    score = count({"a": "I can't pay twenty dollars"}, {"a": "i cannot, um, pay $20!"}, normalizer="english")
    assert score.total.errors == 2  # "can not" and "cannot" are two ways that the standard keeps apart
    assert count({"a": "It's colour"}, {"a": "it is color"}, normalizer="english").rate == 0


def test_utterances_that_differ_are_named() -> None:
    with pytest.raises(ScoringError, match=r"2 without hypothesis: b, c; 1 without reference: x"):
        count({"a": "1", "b": "2", "c": "3"}, {"a": "1", "x": "1"})
    many = {f"u{k:03d}": "" for k in range(100)}
    with pytest.raises(ScoringError, match="u019 and 80 more"):
        count(many, {})


def test_missing_hypotheses_are_empty_only_when_allowed() -> None:
    references = {"a": "one two", "b": "three"}
    with pytest.raises(ScoringError, match="allow missing"):
        count(references, {"a": "one two"})
    score = count(references, {"a": "one two"}, allow_missing=True)
    assert (score.total.deletions, score.missing) == (1, ("b",))
    with pytest.raises(ScoringError, match="without reference: z"):
        count(references, {"a": "", "b": "", "z": ""}, allow_missing=True)


def test_empty_set_and_empty_texts() -> None:
    assert count({}, {}).rate == 0.0
    assert count({"a": ""}, {"a": ""}).sentence_error_rate == 0.0
    assert count({"a": "", "b": "x"}, {"a": "y z", "b": "x"}).rate == 2.0


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ScoringError, match="word, char, mixed"):
        count({"a": ""}, {"a": ""}, unit="phone")
    with pytest.raises(ScoringError, match="none, basic"):
        count({"a": ""}, {"a": ""}, normalizer="klingon")


def test_observers_see_every_system_in_order() -> None:
    seen = []
    first, second = score_systems(
        {"b": "x y", "a": "z"},
        [{"a": "z", "b": "x"}, {"a": "q", "b": "x y"}],
        observers=[lambda name, found: seen.append((name, tuple(a.counts.errors for a in found)))],
    )
    assert seen == [("b", (1, 0)), ("a", (0, 1))]
    assert (first.total.deletions, second.total.substitutions) == (1, 1)
    with pytest.raises(ScoringError, match=r"^two\.txt: utterances"):
        score_systems({"a": ""}, [{"a": ""}, {}], labels=["one.txt", "two.txt"])
