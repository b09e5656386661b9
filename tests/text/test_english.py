"""The English normaliser against the reference implementation of the Whisper paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import ScoringError
from asr.text.english import normalize, version

whisper_normalizers = pytest.importorskip("whisper.normalizers")
REFERENCE = whisper_normalizers.EnglishTextNormalizer()

# Words that its rules treat, alone and where rules meet.
TEXT = """won't can't let's ain't y'all wanna gotta gonna i'ma imma woulda coulda shoulda ma'am mr mrs st dr prof capt
gov ald gen sen rep pres rev hon asst assoc lt col jr sr esq 'd been 's gone he'd been she's got n't they're it's i'd
we'll 't I've I'm kinda sorta dunno cause uh um hmm mm mhm mmm colour honour organise one two twenty thirty hundred
thousand million point five oh nine $20 1,000 20% ½ 1960s and a half double triple per cent (noise) [laugh] <unk> é ' ’
. , Mr. St. minus zero first second third £3.50 10,000.5 ٣ ² ok o'clock [ ] ( ) < >"""
WORDS = TEXT.split()


@settings(max_examples=400)
@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from([" ", "  ", "", ", "]))
def test_equals_whisper_where_rules_meet(words: list[str], separator: str) -> None:
    text = separator.join(words)
    assert normalize(text) == REFERENCE(text).strip()


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_equals_whisper_on_any_text(text: str) -> None:
    assert normalize(text) == REFERENCE(text).strip()


def test_equals_whisper_on_real_transcripts(corpora: Path) -> None:
    lines = (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [fields[3] for fields in (line.split("\t") for line in lines) if fields[0].startswith("LibriSpeech/")]
    assert len(texts) > 2000
    for text in texts[::3]:
        assert normalize(text) == REFERENCE(text).strip()


def test_cases_that_the_paper_names() -> None:
    assert normalize("Um, I can't [laughs] pay twenty-five dollars (really) for the colour") == (
        "i can not pay $25 for the color"
    )
    assert version().startswith("whisper-normalizer ")


def test_a_number_too_long_to_convert_is_refused_in_a_sentence() -> None:
    with pytest.raises(ScoringError, match="too long"):
        normalize("1" * 5000)
