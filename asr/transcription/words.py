"""What counts as a word of a text, and which tokens it was written with."""

from __future__ import annotations

from collections.abc import Sequence

from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer
from asr.transcription.transcript import is_spaceless

Span = tuple[int, int]  # first character and the one after the last


def spans(text: str) -> list[Span]:
    """Words of a text: what stands between spaces, and each character of a script without spaces.

    Punctuation belongs to the word before it; at the start of a text, or after a space, to the word after it.
    """
    found: list[list[int]] = []
    lettered = False  # whether the current word has a letter or digit yet
    for index, character in enumerate(text):
        if character.isspace():
            continue
        follows = bool(found) and found[-1][1] == index  # no space in between
        letter = character.isalnum()
        if letter and is_spaceless(character):
            joins = follows and not lettered
        elif letter:
            joins = follows and not is_spaceless(text[index - 1])
        else:
            joins = follows
        if joins:
            found[-1][1] = index + 1
            lettered = lettered or letter
        else:
            found.append([index, index + 1])
            lettered = letter
    return _without_lone_punctuation(text, [(begin, end) for begin, end in found])


def _without_lone_punctuation(text: str, words: list[Span]) -> list[Span]:
    """Give what has no letter, as a dash between spaces, to the word before it, or at the start to the one after."""
    merged: list[Span] = []
    for begin, end in words:
        alone = not any(character.isalnum() for character in text[begin:end])
        if merged and (alone or not any(character.isalnum() for character in text[slice(*merged[-1])])):
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged


def token_spans(hypothesis: Hypothesis, *tokenizers: CharacterTokenizer | BytePairTokenizer) -> list[Span]:
    """The characters of the text that each token writes; a token within a character has that character.

    Args:
        tokenizers: of the decoder and the CTC head; that one counts whose tokens write the text. Where none does, because
            the text was rewritten after the search, tokens are spread evenly.
    """
    text, count = hypothesis.text, len(hypothesis.tokens)
    for tokenizer in tokenizers:
        if max(hypothesis.tokens, default=0) >= len(tokenizer):
            continue
        pieces = [tokenizer.piece(token) for token in hypothesis.tokens]
        content = b"".join(pieces)
        raw = content.decode("utf-8", errors="ignore")
        if raw.strip() == text and len(raw.encode()) == len(content):
            return _spans(raw, text, pieces)
    return [(len(text) * n // count, -(-len(text) * (n + 1) // count)) for n in range(count)]


def _spans(raw: str, text: str, pieces: Sequence[bytes]) -> list[Span]:
    offset = len(raw) - len(raw.lstrip())
    of_byte = [index for index, character in enumerate(raw) for _ in range(len(character.encode()))]
    found, position = [], 0
    for piece in pieces:
        begin, position = position, position + len(piece)
        if not piece:
            found.append((0, 0))
            continue
        first, last = of_byte[begin] - offset, of_byte[position - 1] + 1 - offset
        found.append((min(max(first, 0), len(text)), min(max(last, 0), len(text))))
    return found


def tokens_of(word: Span, tokens: Sequence[Span]) -> list[int]:
    """Numbers of the tokens that write a part of a word."""
    return [number for number, (begin, end) in enumerate(tokens) if begin < word[1] and end > word[0] and begin < end]


def letters(text: str, word: Span) -> Span:
    """A word without the punctuation around it; all of it if it is nothing else."""
    inside = [index for index in range(*word) if text[index].isalnum()]
    return (inside[0], inside[-1] + 1) if inside else word
