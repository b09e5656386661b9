"""Readable training text: what the hypothesis gives, and that the reference's words always win."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text.english import normalize
from asr.text.readable import restore


@pytest.mark.parametrize(
    ("reference", "hypothesis", "readable"),
    [
        # Capitals and marks of a hypothesis that is right.
        ("WHY WHERE IS HE SHE ASKED", "Why, where is he? she asked.", "Why, where is he? she asked."),
        ("AND STAYED THERE", "and stayed there,", "and stayed there,"),
        (
            "I THINK I'LL SEE MCDONALD OF THE BBC",
            "I think I'll see McDonald of the BBC.",
            "I think I'll see McDonald of the BBC.",
        ),
        # Wrong words: the reference's, with the capital only of a name spelled otherwise or of a sentence.
        ("TO REFUSE REMINGTON KARA", "To refuse Remington Cara.", "To refuse Remington Kara."),
        ("NO BLOOD ON YOU SHE SAID", "No blood on Tibber said.", "No blood on you she said."),
        ("THERE IS NONE GO", "There was none. Stop!", "There is none. Go!"),
        ("AND THE DOG RAN", "The dog ran.", "And the dog ran."),
        ("SO TRUE", "", "so true"),
        ("", "Thank you.", ""),
        ("BEHIND THE WHITE HOUSE", "Behind the white.", "Behind the white house."),
        ("FOR PRAYER CHAPTER SEVEN OF JUDITH", "For prayer.", "For prayer. Chapter seven of judith"),
        # What the hypothesis adds goes, its mark stays.
        ("HE WENT HOME", "He went home, he went home, you know.", "He went home."),
        ("SHE CAME", "She uh came. [laughs] (music)", "She came."),
        # Split and merged words, hyphens.
        ("DOES ANY ONE KNOW", "Does anyone know?", "Does any one know?"),
        ("ANYONE MAY", "Any one may.", "Anyone may."),
        ("TO MORROW THE WELL KNOWN MAN", "Tomorrow the well-known man", "To morrow the well-known man"),
        ("A BLACKBIRD", "A Black-bird.", "A Blackbird."),
        # Numbers stay in words; what is behind the digits stays behind all of the words.
        ("CHAPTER THIRTY THREE ROMAN BANDITS", "Chapter 33, Roman bandits", "Chapter thirty-three, Roman bandits"),
        ("FIVE HUNDRED DOLLARS ON THAT", "$500 on that.", "Five hundred dollars on that."),
        ("EIGHTEEN FIFTY ONE MADAME", "1851. Madam.", "Eighteen fifty-one. Madame."),
        ("ONE THOUSAND AND TWO MEN", "1,002 men", "One thousand and two men"),
        ("DECEMBER TWENTY SEVENTH", "December 27", "December twenty-seventh"),
        # Titles, abbreviations, contractions, apostrophes.
        (
            "MISTER AND MISSUS THORPE OF SAINT JAMES'S",
            "Mr. and Mrs. Thorpe of St. James's.",
            "Mr. and Mrs. Thorpe of St. James's.",
        ),
        ("THE STREET OF CAPTAIN BLOOD", "The St. of Capt. Blood", "The street of Captain Blood"),
        ("IT'S THE BOYS' HAT DON'T YOU SEE", "It’s the boys' hat. Don’t you see?", "It's the boys' hat. Don't you see?"),
        ("IT IS SO", "It's so.", "It is so."),
        # Quotation marks, dashes and ellipses.
        ("GO HE SAID AT ONCE", '"Go," he said, "at once."', "Go, he said, at once."),
        ("WELL I WAS TIRED", "Well—I was -- tired...", "Well, I was, tired"),
    ],
)
def test_cases(reference: str, hypothesis: str, readable: str) -> None:
    assert restore(reference, hypothesis) == readable


REFERENCE_WORDS = """THE A MISTER SAINT
DOCTOR MISSUS ANY ONE ANYONE TWENTY THIRTY FIVE HUNDRED POINT AND I I'M DON'T O'CLOCK BOYS'
WELL KNOWN FIRST SECOND DOLLARS HALF OH KARA JAMES'S 'TIS TO DAY NO"""
HYPOTHESIS_WORDS = """The a, Mr. Mr St. Dr. Mrs. any-one Anyone. 25 $500 5.5 105 20th I'm don't o'clock, boys' "well-known" first!
2nd ½ oh... Cara James's 'Tis today [noise] (x) -- — - ? “No” U.S. a.m. J. 1,000, 9:30 £5"""
WORDS, MARKED = REFERENCE_WORDS.split(), HYPOTHESIS_WORDS.split()


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=10), st.lists(st.sampled_from(MARKED), max_size=10))
def test_reference_words_always_win(reference: list[str], hypothesis: list[str]) -> None:
    text = restore(" ".join(reference), " ".join(hypothesis))
    short = {"Mr.": "mister", "Mrs.": "missus", "Dr.": "doctor", "St.": "saint"}
    words = [short.get(word.rstrip(",?!;:"), word.rstrip(".,?!;:")).lower() for word in text.replace("-", " ").split()]
    assert words == [word.lower() for word in reference]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(WORDS[:8] + WORDS[16:]), max_size=10), st.text(max_size=40))
def test_any_hypothesis_is_only_marks(reference: list[str], hypothesis: str) -> None:
    text = restore(" ".join(reference), hypothesis)
    assert normalize(text) == normalize(" ".join(reference))
    assert restore(" ".join(reference), text) == text  # marks that are there already stay as they are


def test_scores_do_not_change_on_real_transcripts(corpora: Path) -> None:
    """A readable text of itself, with errors made on purpose, scores as the transcript does."""
    lines = (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [fields[3] for fields in (line.split("\t") for line in lines) if fields[0].startswith("LibriSpeech/dev-extra")]
    for number, text in enumerate(texts[::8]):
        words = text.capitalize().split()
        words[number % len(words)] = "Something,"
        del words[1 + (3 * number) % (len(words) - 1)]
        readable = restore(text, " ".join(words) + ".")
        assert normalize(readable) == normalize(text)
        assert readable[0].isupper()
        assert readable.endswith(".")
