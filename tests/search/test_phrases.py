"""The bonus of phrases against a search in the finished text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import ConfigurationError
from asr.search import phrases
from asr.search.decoding import decode
from asr.search.language_model import score_texts
from asr.search.options import DecodingOptions
from asr.text.tokenizer import CharacterTokenizer
from tests.search import test_greedy

TOKENIZER = CharacterTokenizer.build(["abc"])


@given(st.text("ab ", max_size=20))
@settings(max_examples=150)
def test_only_whole_phrases_keep_their_bonus(text: str) -> None:
    text = " ".join(text.split())
    (score,) = score_texts(phrases.Phrases(["aba"], 1.0), TOKENIZER, [TOKENIZER.encode(text)])
    # Each at the beginning of a word, of its three letters and the space before them.
    found = [match.start() for match in re.finditer("(?= aba)", f" {text}")]
    assert score == len(found) * 4


def test_the_longest_beginning_counts() -> None:
    several = phrases.Phrases(["ab", "abc", "bca c"], 0.5)
    texts = {"ab": 1.5, "abc": 2.0, "a": 0.0, "bca b": 0.0, "bca c": 3.0, "c ab": 1.5, "b abcc": 2.0}
    scores = score_texts(several, TOKENIZER, [TOKENIZER.encode(text) for text in texts])
    assert dict(zip(texts, scores, strict=True)) == pytest.approx(texts)


def test_byte_pairs_are_found_in_the_text_and_at_its_beginning() -> None:
    import asr

    tokenizer = asr.load("en", "cpu").checkpoint.tokenizer
    several = phrases.Phrases(["Leigh Hunt", "cumulus"], 1.0)
    texts = [" I met Leigh Hunt.", "Leigh Hunt met me.", " a cumulus cloud", "Cumulus clouds", " nothing of it", " I met Leigh."]
    scores = score_texts(several, tokenizer, [tokenizer.encode(text) for text in texts])
    assert all(score > 0 for score in scores[:4])
    assert scores[4:] == [0.0, 0.0]


def test_a_phrase_with_enough_bonus_is_said() -> None:
    model = test_greedy.recognizer(1, suppressed=(0, 1, 2))
    encoded, samples = test_greedy.random_encoded(2)
    for decoder in ("autoregressive", "joint", "ctc-beam", "rescoring"):
        options = DecodingOptions(decoder, beam_size=20, phrases=phrases.Phrases(["dog"], 30.0))  # type: ignore[arg-type]
        found = decode(model, test_greedy.TOKENIZER, encoded, samples, options)
        assert any("dog" in each.text for each in found), decoder


def test_files_of_phrases(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# names\nLeigh Hunt\n\n  Shelley \n", encoding="utf-8")
    assert phrases.read(tmp_path / "names.txt") == ("Leigh Hunt", "Shelley")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(ConfigurationError, match=name):
            phrases.read(tmp_path / name)
