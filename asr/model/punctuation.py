"""A Conformer that reads a text without punctuation and says which mark follows each of its characters.

Where a clause ends is told by the characters close by, which its convolutions see, and by the sentence, which attention sees. A
Transformer of the same size learned to look at a character's neighbours only slowly.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model import checkpoint as model_folder
from asr.model.configuration import EncoderConfiguration
from asr.model.encoder import ConformerBlock
from asr.model.layers import length_mask
from asr.text.mandarin import is_han, simplify
from asr.text.punctuation import MARKS, punctuated, separate
from asr.text.tokenizer import CharacterTokenizer, TokenizerConfiguration, read_tokens

LONGEST = 160
"""Characters of a passage that the model learns from: half a minute of speech."""
# A text is read so many characters at a time, with some more on both sides that are read for what they say of these; not so
# many that a place is reached that only the longest passages had.
_WINDOW, _MARGIN = 64, 32
# Where no mark has less than this probability, the likeliest mark is written.
_NO_MARK = 0.5
# Words and names, as a person dictates them, are no sentence.
_SHORTEST_SENTENCE = 5
# Within a number no clause ends.
_NUMERAL = frozenset("零〇一二三四五六七八九十百千万亿两幺点")


class PunctuationConfiguration(StrictModel):
    """The model, as ``config.yaml`` of its folder has it."""

    kind: Literal["punctuation"] = "punctuation"
    marks: tuple[str, ...] = MARKS
    width: int = Field(128, ge=2)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(256, ge=1)
    kernel: int = Field(9, ge=1, description="characters that a convolution sees, an odd number")
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> PunctuationConfiguration:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads, or is odd")
        if self.marks != MARKS:
            raise ValueError(f"marks are {' '.join(self.marks[1:])} and not {' '.join(MARKS[1:])}; train the model again")
        return self

    def block(self) -> EncoderConfiguration:
        """A layer: the recogniser's encoder's."""
        names = ("layers", "width", "heads", "feed_forward", "kernel", "dropout")
        return EncoderConfiguration(block="conformer", **{name: getattr(self, name) for name in names})


class PunctuationModel(nn.Module):
    """Characters in, scores of the marks behind them out.

    Args:
        configuration: the model.
        vocabulary: number of characters.
    """

    def __init__(self, configuration: PunctuationConfiguration, vocabulary: int) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.token_embedding = nn.Embedding(vocabulary, c.width)
        self.layers = nn.ModuleList(ConformerBlock(c.block()) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        self.mark = nn.Linear(c.width, len(c.marks))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Score the marks: tokens int64 (batch, length) with lengths (batch,) -> logits float32 (batch, length, marks)."""
        hidden = self.dropout(self.token_embedding(tokens))
        valid = length_mask(lengths, tokens.shape[1])
        attend = None if bool(valid.all()) else length_mask(lengths.clamp(min=1), tokens.shape[1])[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, valid, attend, None)
        return cast(Tensor, self.mark(hidden).float())


@dataclass(frozen=True)
class Punctuator:
    """A punctuation model and its characters, as a folder holds them; ``asr.model.checkpoint.save`` writes it."""

    model: PunctuationModel
    tokenizer: CharacterTokenizer
    folder: Path | None = None

    def tokens(self, characters: str) -> list[int]:
        """Numbers of characters, one each."""
        return self.tokenizer.encode("".join(character.lower()[0] for character in characters))

    @torch.inference_mode()
    def no_mark(self, characters: str) -> tuple[Tensor, Tensor]:
        """The probability that nothing follows each spoken character, float32 (characters,), and the likeliest mark there."""
        numbers = torch.tensor(self.tokens(simplified(characters)), dtype=torch.int64)
        parts = []
        for first in range(0, len(numbers), _WINDOW):
            begin, last = max(first - _MARGIN, 0), min(first + _WINDOW, len(numbers))
            part = numbers[begin : last + _MARGIN]
            parts.append(self.model(part[None], torch.tensor([len(part)]))[0, first - begin : last - begin])
        spoken = torch.cat(parts).softmax(dim=-1)
        return spoken[:, 0], spoken[:, 1:].argmax(dim=-1) + 1

    def marks(self, characters: str, threshold: float = _NO_MARK) -> list[int]:
        """The number in ``MARKS`` of what follows each spoken character of a text."""
        if not characters:
            return []
        none, likeliest = self.no_mark(characters)
        found: list[int] = torch.where(none < threshold, likeliest, 0).tolist()
        inside = (before in _NUMERAL and after in _NUMERAL for before, after in pairwise(characters))
        return [0 if within and MARKS[mark] != "、" else mark for mark, within in zip_longest(found, inside, fillvalue=False)]

    def marks_of(self, text: str) -> list[int] | None:
        """The marks of a Mandarin text, one for each of its spoken characters; None where most of it is not Mandarin.

        Fewer than five characters get none: they are a word or a name.
        """
        characters, _ = separate(text)
        if 2 * sum(is_han(character) for character in characters) <= len(characters):
            return None
        return self.marks(characters) if len(characters) >= _SHORTEST_SENTENCE else [0] * len(characters)

    def write(self, text: str) -> str:
        """A Mandarin text with this model's punctuation in place of its own; another text as it is."""
        marks = self.marks_of(text)
        return text if marks is None else punctuated(text, marks)


def simplified(characters: str) -> str:
    """The same characters in the script that the model learned, as far as they are one for one."""
    written = simplify(characters)
    return written if len(written) == len(characters) else characters


def load(folder: Path) -> Punctuator:
    """Read a checkpoint folder of ``asr train-punctuation``, in evaluation mode and float32.

    Raises:
        CheckpointError: a file is missing or does not fit, or the folder is another model's.
        ConfigurationError: the configuration is not valid.
    """
    model_folder.check_files(folder)
    if model_folder.kind(folder) != "punctuation":
        raise CheckpointError(f"{folder}: is no punctuation model; give a folder that asr train-punctuation wrote.")
    settings = configuration.load(folder / model_folder.CONFIGURATION, PunctuationConfiguration)
    tokenizer = read_tokens(folder / model_folder.TOKENS, TokenizerConfiguration())
    assert isinstance(tokenizer, CharacterTokenizer)
    model = model_folder.filled(folder, lambda: PunctuationModel(settings, len(tokenizer)))
    return Punctuator(model.eval(), tokenizer, folder)


def vocabulary(texts: Sequence[str], minimum_count: int) -> CharacterTokenizer:
    """What is spoken in texts at least so often, in lower case, as a tokenizer; other characters are unknown."""
    counts = Counter(character for text in texts for character in unicodedata.normalize("NFKC", text).lower())
    return CharacterTokenizer.build("".join(c for c, count in counts.items() if count >= minimum_count and c.isalnum()))
