"""What a head of letters writes for a decoder of byte pairs, against regular expressions and the head's own training labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.search.spelling import BEGIN, Spelling
from asr.text.tokenizer import CharacterTokenizer
from tests.search import toy

SPELLING = Spelling(toy.BYTE_PAIRS, toy.LETTERS)
byte_pairs = st.lists(st.integers(0, len(toy.BYTE_PAIRS) - 1), max_size=12)


@given(byte_pairs)
def test_a_text_is_written_as_the_head_writes_it(tokens: list[int]) -> None:
    spelled = SPELLING.spell(tokens)
    assert "".join(toy.LETTERS.symbol(token) or "?" for token in spelled) == toy.written(toy.BYTE_PAIRS.decode(tokens))


@given(byte_pairs)
def test_a_text_is_written_as_in_the_training_of_the_head(tokens: list[int]) -> None:
    assert SPELLING.spell(tokens) == toy.LETTERS.encode(toy.BYTE_PAIRS.decode(tokens))


@given(st.text(alphabet="aAbB .,-'’7é\n—", max_size=20), st.data())
def test_where_a_text_is_cut_into_tokens_does_not_matter(text: str, data: st.DataObject) -> None:
    pieces, tokens = text.encode(), []
    while pieces:
        fitting = [number for number, piece in enumerate(toy.PIECES) if pieces.startswith(piece)]
        if not fitting:
            return  # the few byte pairs cannot write it
        tokens.append(data.draw(st.sampled_from(fitting)))
        pieces = pieces[len(toy.PIECES[tokens[-1]]) :]
    assert SPELLING.spell(tokens) == toy.LETTERS.encode(text)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b" ab", b".", b" ", b" ab"], "ab ab"),
        ([b".", b" ab", b".", b" "], "ab"),
        ([b"a", b"\xe2\x80", b"\x99", b"B"], "a'b"),
        ([b"a", b"\xe2\x80", b"B"], "a b"),
        ([b"a", b"\xe2\x80"], "a"),
        ([b"a", b" ", b"7", b" ", b"b"], "a ? b"),
        ([b"a", "é".encode(), b"b"], "a?b"),
        ([b"B", b"-a"], "b a"),
        ([b"7", b"."], "?"),
        ([], ""),
    ],
)
def test_spaces_marks_and_bytes(pieces: list[bytes], expected: str) -> None:
    spelled = SPELLING.spell(toy.PIECES.index(piece) for piece in pieces)
    assert "".join(toy.LETTERS.symbol(token) or "?" for token in spelled) == expected


def test_special_tokens_write_nothing() -> None:
    for token in ("<|endoftext|>", "<|startoftranscript|>"):
        assert SPELLING.follow(BEGIN, toy.BYTE_PAIRS.identifier(token)) == ((), BEGIN)


def test_a_head_without_spaces_does_as_in_its_training() -> None:
    letters = CharacterTokenizer.of("ab")
    assert Spelling(toy.BYTE_PAIRS, letters).spell([0, 2, 6, 3]) == letters.encode("a ab b")


@given(st.lists(st.integers(0, len(toy.TOKENIZER) - 1)))
def test_with_one_vocabulary_a_token_is_itself(tokens: list[int]) -> None:
    assert Spelling(toy.TOKENIZER, CharacterTokenizer(toy.TOKENIZER.tokens)).spell(tokens) == tokens
