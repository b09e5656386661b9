"""Punctuation of Mandarin taken off a text and put onto it: which mark follows each character."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from asr.text.mandarin import digits_to_numerals

MARKS = ("", "，", "、", "。", "？")
"""What may follow a character: nothing, or one of these."""

# What else is printed between clauses and at their ends, as the mark that is closest to it.
_LIKE = {
    **dict.fromkeys(",:；;：", "，"),
    **dict.fromkeys("!！….．", "。"),
    "?": "？",
}
_NUMBER = {**{mark: number for number, mark in enumerate(MARKS) if mark}, **{a: MARKS.index(b) for a, b in _LIKE.items()}}
_QUOTES = frozenset("\"'“”‘’「」『』《》〈〉【】()（）[]{}〔〕<>")
_END = re.compile("(?<=[。？])")
_CLAUSE = re.compile("(?<=[，、。？])")
_REMARK = re.compile(r"[（(【\[][^（）()【】\[\]]*[）)】\]]")


def is_spoken(character: str) -> bool:
    """Whether it is a letter, a digit or a Han character, which a mark may follow."""
    return character.isalnum()


def separate(text: str) -> tuple[str, list[int]]:
    """What is spoken of a text, and the number in ``MARKS`` of what follows each of its characters.

    Between two characters that are not both Han, a mark counts where a space or another mark follows it: 3.14 and U.S. have none.
    The text should have passed ``unicodedata.normalize("NFKC", ...)``.
    """
    characters: list[str] = []
    marks: list[int] = []
    for place, character in enumerate(text):
        if is_spoken(character):
            characters.append(character)
            marks.append(0)
        elif marks and not marks[-1] and character in _NUMBER and not _inside(text, place):
            marks[-1] = _NUMBER[character]
    return "".join(characters), marks


def punctuated(text: str, marks: Sequence[int]) -> str:
    """A text with these marks, one for each character that is spoken, in place of its own.

    Quotation marks and brackets stay, a mark stands behind those that close; nothing is put between two Latin letters or
    digits. Spaces are dropped beside a mark.
    """
    written: list[str] = []
    left = iter(marks)
    waiting = 0
    for place, character in enumerate(text):
        if is_spoken(character) or character.isspace() or (character in _QUOTES and _opens(text, place)):
            if waiting and not character.isspace():
                written.append(MARKS[waiting])
                waiting = 0
            if is_spoken(character):
                written.append(character)
                number = next(left)
                waiting = 0 if _within_word(text, place) else number
            elif not (character.isspace() and waiting):
                written.append(character)
        elif character in _NUMBER and not _inside(text, place):
            continue
        else:
            written.append(character)
    return "".join(written).rstrip() + MARKS[waiting]


def passages(text: str, longest: int, seed: Sequence[int] = ()) -> Iterator[str]:
    """Passages of a printed paragraph to learn from, of some sentences each, as long as what is said between two long pauses.

    Numbers are written as they are read, remarks in brackets are left out. Most passages end with a sentence, one in five
    with a clause; their length is drawn up to ``longest`` characters.

    Args:
        text: a paragraph, in simplified characters.
        longest: characters of a passage at most; a clause that is longer is left out.
        seed: of what is drawn.
    """
    import numpy as np

    generator = np.random.default_rng(list(seed))
    plain = _REMARK.sub("", unicodedata.normalize("NFKC", text))
    spoken, marks = separate(digits_to_numerals(plain))
    sentence = "".join(itertools.chain.from_iterable((c, MARKS[m]) for c, m in zip(spoken, marks, strict=True)))
    passage, wanted = "", int(generator.integers(1, longest + 1))
    for piece in (_CLAUSE if generator.random() < 0.2 else _END).split(sentence):
        if passage and len(passage) + len(piece) > wanted:
            yield passage
            passage, wanted = "", int(generator.integers(1, longest + 1))
        if len(piece) > longest:
            continue
        passage += piece
    if passage:
        yield passage


def _inside(text: str, place: int) -> bool:
    """Whether a sign stands within a Latin word or number, as in 3.14, 10:30 and U.S."""
    around = text[max(place - 1, 0) : place + 2]
    return len(around) == 3 and around.isascii() and around[0].isalnum() and around[2].isalnum()


def _within_word(text: str, place: int) -> bool:
    """Whether a Latin letter or digit is followed by another, or by a sign within the word."""
    after = text[place + 1 : place + 2]
    if not (text[place].isascii() and after.isascii() and after):
        return False
    return after.isalnum() or (not after.isspace() and _inside(text, place + 1))


def _opens(text: str, place: int) -> bool:
    """Whether a quotation mark or bracket opens: what comes before it is no part of what it holds."""
    character = text[place]
    if character in "“‘「『《〈【(（[{〔<":
        return True
    return character in "\"'" and text[:place].count(character) % 2 == 0
