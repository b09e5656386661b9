"""Punctuation of Mandarin taken off a text and put onto it: which mark follows each character."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from asr.text.mandarin import digits_to_numerals, is_han

MARKS = ("", "，", "、", "。", "？")
"""What may follow a character: nothing, or one of these."""

# What else is printed between clauses and at their ends, as the mark that is closest to it.
_LIKE = {
    **dict.fromkeys(",:；;：", "，"),
    **dict.fromkeys("!！….．", "。"),
    "?": "？",
}
_NUMBER = {**{mark: number for number, mark in enumerate(MARKS) if mark}, **{a: MARKS.index(b) for a, b in _LIKE.items()}}
_OPENING, _CLOSING, _STRAIGHT = "“‘「『《〈【（(［[{〔<﹁﹃", "”’」』》〉】）)］]}〕>﹂﹄", "\"'＂＇"
_END = re.compile("(?<=[。？])")
_CLAUSE = re.compile("(?<=[，、。？])")
_REMARK = re.compile(r"[（(【\[][^（）()【】\[\]]*[）)】\]]")

# A character that is written without spaces; one of another script, a number or a sign; a mark; a quotation mark or bracket.
_Class = Literal["han", "foreign", "mark", "opening", "closing", "space"]


def separate(text: str) -> tuple[str, list[int]]:
    """What is spoken of a text, and the number in ``MARKS`` of what follows each of its characters.

    Spoken are Han characters, letters and digits. Signs within a word or number of another script are no marks (3.14, U.S.).
    """
    characters: list[str] = []
    marks: list[int] = []
    for character, kind in zip(text, _classes(text), strict=True):
        if character.isalnum():
            characters.append(character)
            marks.append(0)
        elif kind == "mark" and marks and not marks[-1]:
            marks[-1] = _NUMBER[character]
    return "".join(characters), marks


def punctuated(text: str, marks: Sequence[int]) -> str:
    """A text with these marks, one for each character that is spoken, in place of its own.

    Nothing is put into a word or number of another script, and what is between two of them stays. Quotation marks and brackets
    stay; a mark stands behind those that close. Spaces are dropped beside a mark.
    """
    classes = _classes(text)
    written: list[str] = []
    left = iter(marks)
    waiting, dropped, last = 0, "", "space"
    for place, (character, kind) in enumerate(zip(text, classes, strict=True)):
        begins = kind in ("han", "opening") or (kind == "foreign" and (place == 0 or classes[place - 1] != "foreign"))
        if begins:
            if waiting:
                written.append(MARKS[waiting])
            elif dropped and kind == "foreign" and last not in ("han", "space"):
                written.append(dropped)
            waiting, dropped = 0, ""
        if kind == "mark":
            dropped += character
        elif kind != "space" or not waiting:
            written.append(character)
            last = kind
        if character.isalnum():
            waiting = next(left)
    return "".join(written).strip() + MARKS[waiting]


def passages(text: str, longest: int, seed: Sequence[int] = ()) -> Iterator[str]:
    """Passages of a printed paragraph to learn from, as long as what is said between two long pauses.

    Numbers are written as they are read, remarks in brackets are left out. Of four paragraphs in five the passages end with
    sentences, of the others with clauses; their lengths are drawn up to ``longest`` characters.

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


def _classes(text: str) -> list[_Class]:
    """What each character of a text is."""
    found: list[_Class] = []
    open_quotes: set[str] = set()
    for place, character in enumerate(text):
        before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
        kind: _Class = "foreign"
        if is_han(character):
            kind = "han" if character.isalnum() else "foreign"
        elif character.isspace():
            kind = "space"
        elif not character.isalnum() and not (_is_foreign(before) and _is_foreign(after)):
            if character in _STRAIGHT:
                kind = "closing" if character in open_quotes else "opening"
                open_quotes ^= {character}
            elif character in _OPENING or character in _CLOSING:
                kind = "opening" if character in _OPENING else "closing"
            elif character in _NUMBER and (character >= "\u3000" or _ends(text, place)):
                kind = "mark"
        found.append(kind)
    return found


def _is_foreign(character: str) -> bool:
    """Whether it is a letter or digit of another script."""
    return character.isalnum() and not is_han(character)


def _ends(text: str, place: int) -> bool:
    """Whether a sign of no full width may end a clause, and is not within an address or before a name (.NET)."""
    after = place
    while after < len(text) and text[after] in _NUMBER:
        after += 1
    follows = text[after : after + 1]
    return not follows or follows.isspace() or is_han(follows) or follows in _OPENING + _CLOSING + _STRAIGHT
