"""What a CTC head writes for the decoder's tokens: a transducer that reads tokens and writes the head's characters.

A head of characters beside a decoder of byte pairs has no capitals, no punctuation and no digits. It was trained on texts that
its own tokenizer wrote (``asr.training.objective``), and the decoder's texts are written for it in the same way, but one token
after another, so that a beam search can score texts that are not yet whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from asr.text.tokenizer import Tokenizer

_utf8 = codecs.getincrementaldecoder("utf-8")


class State(NamedTuple):
    """Where a text is.

    Attributes:
        incomplete: bytes of a character whose end is in the next token.
        begun: whether a character is written.
        separated: whether a space belongs before the next one, if any comes: none is at the beginning or end, or beside another.
    """

    incomplete: bytes = b""
    begun: bool = False
    separated: bool = False


BEGIN = State()


class Spelling:
    """The CTC head's tokens for the decoder's.

    - Where both have the same tokens, each is itself.
    - Otherwise a whole text is what the head's tokenizer makes of it: letters in the head's case; spaces and marks that it does
      not write (hyphens, quotes) are one space between letters; a letter or digit that it cannot write is ``<unk>``. Leaving it
      out instead would make digits free of charge, and a beam that finds the letters too dear writes nothing else.
    - A character whose bytes are in several tokens is written with the last of them, special tokens write nothing.

    Args:
        tokenizer: of the decoder.
        ctc_tokenizer: of the CTC head.
    """

    def __init__(self, tokenizer: Tokenizer, ctc_tokenizer: Tokenizer) -> None:
        self.shared = ctc_tokenizer.tokens == tokenizer.tokens
        self._tokenizer = tokenizer
        self._ctc_tokenizer = ctc_tokenizer
        # A search asks the same again and again.
        self._written: dict[str, tuple[int, ...]] = {}
        self._followed: dict[tuple[State, int], tuple[tuple[int, ...], State]] = {}

    def follow(self, state: State, token: int) -> tuple[tuple[int, ...], State]:
        """What is written when one of the decoder's tokens is read, possibly nothing, and the state after it."""
        if self.shared:
            return (token,), state
        found = self._followed.get((state, token))
        if found is None:
            found = self._followed[state, token] = self._follow(state, self._tokenizer.piece(token))
        return found

    def table(self, states: Sequence[State], candidates: Tensor) -> Tensor:
        """What each of the candidates int64 (rows, candidates) writes after the text of its row.

        Returns:
            int64 (rows, candidates, most tokens), filled up with -1.
        """
        if self.shared:
            return candidates[..., None]
        written = [
            self.follow(state, token)[0] for state, tokens in zip(states, candidates.tolist(), strict=True) for token in tokens
        ]
        most = max(map(len, written), default=0)
        filled = [(*each, *[-1] * (most - len(each))) for each in written]
        return torch.tensor(filled, dtype=torch.int64, device=candidates.device).view(*candidates.shape, most)

    def spell(self, tokens: Iterable[int]) -> list[int]:
        """A whole text of the decoder's tokens in those of the head."""
        state = BEGIN
        text: list[int] = []
        for token in tokens:
            written, state = self.follow(state, token)
            text += written
        return text

    @cached_property
    def _space(self) -> tuple[int, ...]:
        # Between letters: it is cut off at the ends of a text.
        return tuple(self._ctc_tokenizer.encode("a a")[1:-1])

    def _follow(self, state: State, piece: bytes) -> tuple[tuple[int, ...], State]:
        decoder = _utf8(errors="replace")
        decoder.setstate((state.incomplete, 0))
        begun, separated = state.begun, state.separated
        text: list[int] = []
        for character in decoder.decode(piece):
            written = self._character(character)
            if written:
                text += (*(self._space if separated and begun else ()), *written)
            begun, separated = begun or bool(written), not written
        return tuple(text), State(decoder.getstate()[0], begun, separated)

    def _character(self, character: str) -> tuple[int, ...]:
        """The head's tokens of one character; none of what is a space to it."""
        if character not in self._written:
            self._written[character] = tuple(self._ctc_tokenizer.encode(character))
        return self._written[character]
