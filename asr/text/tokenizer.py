"""Text to tokens and back: characters, and the byte pairs of Whisper's vocabulary."""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from asr.configuration import StrictModel
from asr.exceptions import CheckpointError

if TYPE_CHECKING:
    import tiktoken

BLANK, UNKNOWN, START, STOP = "<blank>", "<unk>", "<sos>", "<eos>"
SPACE = "<space>"
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")

# How GPT-2 cuts text before pairing bytes: contractions, words with the space before them, numbers, the rest.
# The vocabulary was built on these pieces, so any other cut gives tokens that the model never saw.
_PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class TokenizerConfiguration(StrictModel):
    """How text becomes tokens; the tokens themselves are in the checkpoint's ``tokens.txt``."""

    kind: Literal["character", "byte_pair"] = "character"
    case: Literal["keep", "lower", "upper"] = Field("lower", description="case of the training text's characters")
    punctuation: bool = Field(False, description="whether punctuation other than the apostrophe is kept")


class Tokenizer(Protocol):
    """What the recogniser needs of a tokenizer."""

    tokens: tuple[str, ...]
    blank: int
    stop: int

    def __len__(self) -> int:
        """Size of the vocabulary."""

    def encode(self, text: str) -> list[int]:
        """Text to tokens, without start and stop."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text; special tokens leave no trace."""

    def symbol(self, token: int) -> str:
        """The text of one token, empty for a special one."""

    def piece(self, token: int) -> bytes:
        """The UTF-8 of one token, which may end within a character; empty for a special one."""

    def identifier(self, token: str) -> int:
        """Number of a token that is known to be in the vocabulary."""


class CharacterTokenizer:
    """One token a character, after ``<blank> <unk> <sos> <eos>``.

    ``<blank>`` is CTC's blank and also fills padded batches. Further tokens in angle brackets are special as well: a
    decoder may be prompted with them (``<zh>``), and they are no text.

    Args:
        tokens: the vocabulary in order of the tokens' numbers; a space is written ``<space>``.
        configuration: case and punctuation.
    """

    def __init__(self, tokens: Sequence[str], configuration: TokenizerConfiguration | None = None) -> None:
        self.tokens = tuple(tokens)
        self.configuration = configuration or TokenizerConfiguration()
        if self.tokens[:4] != (BLANK, UNKNOWN, START, STOP):
            raise CheckpointError(
                f"the vocabulary does not begin with {BLANK} {UNKNOWN} {START} {STOP}; use the tokens.txt of a checkpoint."
            )
        if len(set(self.tokens)) != len(self.tokens):
            raise CheckpointError("the vocabulary holds a token twice; use the tokens.txt of a checkpoint.")
        self.blank, self.unknown, self.start, self.stop = range(4)
        self._numbers = {" " if token == SPACE else token: number for number, token in enumerate(self.tokens)}

    @classmethod
    def build(cls, texts: Iterable[str], configuration: TokenizerConfiguration | None = None) -> CharacterTokenizer:
        """Make the vocabulary of all characters in training text, in code point order."""
        configuration = configuration or TokenizerConfiguration()
        characters: set[str] = set()
        for text in texts:
            characters.update(clean(text, configuration))
        characters.discard(" ")
        return cls((BLANK, UNKNOWN, START, STOP, SPACE, *sorted(characters)), configuration)

    @classmethod
    def of(cls, characters: str) -> CharacterTokenizer:
        """The vocabulary of exactly these characters, in lower case and without punctuation: a CTC head's own."""
        return cls((BLANK, UNKNOWN, START, STOP, *(SPACE if each == " " else each for each in characters)))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Text to tokens, without start and stop; characters that training never saw become ``<unk>``."""
        return [self._numbers.get(character, self.unknown) for character in clean(text, self.configuration)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text; special tokens leave no trace."""
        return "".join(self.symbol(token) for token in tokens).strip()

    def symbol(self, token: int) -> str:
        """The text of one token, empty for a special one."""
        text = self.tokens[token]
        if text == SPACE:
            return " "
        return "" if len(text) > 1 and text.startswith("<") else text

    def piece(self, token: int) -> bytes:
        """The UTF-8 of one token, empty for a special one."""
        return self.symbol(token).encode()

    def identifier(self, token: str) -> int:
        """Number of a token that is known to be in the vocabulary."""
        return self._numbers[" " if token == SPACE else token]


def clean(text: str, configuration: TokenizerConfiguration) -> str:
    """Text as the vocabulary writes it: case, punctuation and single spaces."""
    if configuration.case == "lower":
        text = text.lower()
    elif configuration.case == "upper":
        text = text.upper()
    if not configuration.punctuation:
        text = "".join(c if c.isalnum() or c in "' " or _is_mark(c) else " " for c in text.replace("’", "'"))
    return " ".join(text.split())


def _is_mark(character: str) -> bool:
    """Whether it is a mark that belongs to the letter before it (vowel signs, combining accents)."""
    return unicodedata.category(character).startswith("M")


class BytePairTokenizer:
    """Whisper's vocabulary: GPT-2's byte pairs (Radford et al. 2019, section 2.2) and special tokens ``<|...|>``.

    Args:
        tokens: the vocabulary in order of the tokens' numbers: bytes in base64, special tokens as they are written.

    Attributes:
        pieces: bytes of each token that is not special, by its number.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._specials = {token: number for number, token in enumerate(self.tokens) if token.startswith("<|")}
        ordinary = [(number, token) for number, token in enumerate(self.tokens) if token not in self._specials]
        try:
            # base64.b64decode checks the letters of each token, which takes twice as long as to decode them.
            if strange := _NOT_BASE64.search("".join(token for _, token in ordinary)):
                raise ValueError(f"it holds '{strange[0]}'")
            self.pieces = {number: binascii.a2b_base64(token) for number, token in ordinary}
        except ValueError as error:
            raise CheckpointError(f"the byte-pair vocabulary is not base64 ({error}); import the model again.") from error
        if "<|endoftext|>" not in self._specials:
            raise CheckpointError("the byte-pair vocabulary has no <|endoftext|>; import the model again.")
        self.stop = self._specials["<|endoftext|>"]
        # Whisper has no blank; its stop token is never the target of CTC, so it takes the blank's part.
        self.blank = self.stop

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken

        ranks = {piece: number for number, piece in self.pieces.items()}
        return tiktoken.Encoding("whisper", pat_str=_PIECES, mergeable_ranks=ranks, special_tokens=self._specials)

    def encode(self, text: str) -> list[int]:
        """Text to tokens; what looks like a special token is encoded as ordinary text."""
        return self._encoding.encode_ordinary(text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text; special tokens leave no trace, broken UTF-8 becomes U+FFFD."""
        pieces = (self.pieces[token] for token in tokens if token in self.pieces)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def symbol(self, token: int) -> str:
        """The text of one token, empty for a special one."""
        return self.piece(token).decode("utf-8", errors="replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one token, which may end within a character; empty for a special one."""
        return self.pieces.get(token, b"")

    def identifier(self, token: str) -> int:
        """Number of a special token."""
        return self._specials[token]

    @property
    def added(self) -> range:
        """Numbers of the tokens that were merged after the vocabulary was built: they follow its special tokens."""
        return range(max(self._specials.values()) + 1, len(self.tokens))

    @property
    def languages(self) -> dict[str, int]:
        """Numbers of the language tokens by language code; an English-only vocabulary has them too, untrained."""
        inner = {token[2:-2]: number for token, number in self._specials.items()}
        return {code: number for code, number in inner.items() if code.isalpha() and len(code) in (2, 3)}


def write_tokens(tokens: Iterable[str], path: Path) -> None:
    """Write a vocabulary, one token a line."""
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def read_tokens(path: Path, configuration: TokenizerConfiguration) -> CharacterTokenizer | BytePairTokenizer:
    """Read the vocabulary of a checkpoint.

    Raises:
        CheckpointError: the file is missing or not such a vocabulary.
    """
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: the vocabulary cannot be read ({error}); give a complete checkpoint.") from error
    if tokens and not tokens[-1]:
        tokens.pop()
    if configuration.kind == "byte_pair":
        return BytePairTokenizer(tokens)
    return CharacterTokenizer(tokens, configuration)
