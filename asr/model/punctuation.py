"""A Transformer encoder that reads a text without punctuation and says which mark follows each of its characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from asr.model.encoder import TransformerBlock
from asr.model.layers import length_mask, sinusoids
from asr.text.punctuation import MARKS, punctuated, separate
from asr.text.tokenizer import CharacterTokenizer, TokenizerConfiguration, read_tokens

KIND = "punctuation"
# A text is read so many characters at a time, of which those near a cut are read again with what stands on its other side.
_WINDOW, _MARGIN = 256, 32
# Words and names, as a person dictates them, are no sentence.
_SHORTEST_SENTENCE = 5


class PunctuationConfiguration(StrictModel):
    """The model, as ``config.yaml`` of its folder has it."""

    kind: Literal["punctuation"] = "punctuation"
    marks: tuple[str, ...] = MARKS
    width: int = Field(128, ge=2)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(512, ge=1)
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
        names = ("layers", "width", "heads", "feed_forward", "dropout")
        return EncoderConfiguration(block="transformer", activation="gelu", **{name: getattr(self, name) for name in names})


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
        self.layers = nn.ModuleList(TransformerBlock(c.block()) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        self.norm = nn.LayerNorm(c.width)
        self.mark = nn.Linear(c.width, len(c.marks))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Score the marks: tokens int64 (batch, length) with lengths (batch,) -> logits float32 (batch, length, marks)."""
        hidden = self.token_embedding(tokens)
        hidden = self.dropout(hidden + sinusoids(tokens.shape[1], hidden.shape[2], device=hidden.device).to(hidden.dtype))
        valid = length_mask(lengths, tokens.shape[1])
        attend = None if bool(valid.all()) else length_mask(lengths.clamp(min=1), tokens.shape[1])[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, valid, attend, None)
        return cast(Tensor, self.mark(self.norm(hidden)).float())


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
    def marks(self, characters: str) -> list[int]:
        """The number in ``MARKS`` of what follows each spoken character of a text."""
        found: list[int] = []
        numbers = torch.tensor(self.tokens(characters), dtype=torch.int64)
        for first in range(0, len(numbers), _WINDOW):
            begin, end = max(first - _MARGIN, 0), min(first + _WINDOW + _MARGIN, len(numbers))
            part = numbers[begin:end]
            best = self.model(part[None], torch.tensor([len(part)]))[0].argmax(dim=-1).tolist()
            found += best[first - begin : min(first + _WINDOW, len(numbers)) - begin]
        return found

    def write(self, text: str) -> str:
        """A Mandarin text with this model's punctuation in place of its own; one without a Han character as it is.

        Less than five characters get none: they are a word or a name.
        """
        characters, _ = separate(text)
        if not any("\u4e00" <= character <= "\u9fff" for character in characters):
            return text
        marks = self.marks(characters) if len(characters) >= _SHORTEST_SENTENCE else [0] * len(characters)
        return punctuated(text, marks)


def load(folder: Path) -> Punctuator:
    """Read a checkpoint folder of ``asr train-punctuation``, in evaluation mode and float32.

    Raises:
        CheckpointError: a file is missing or does not fit, or the folder is another model's.
        ConfigurationError: the configuration is not valid.
    """
    model_folder.check_files(folder)
    if model_folder.kind(folder) != KIND:
        raise CheckpointError(f"{folder}: is no punctuation model; give a folder that asr train-punctuation wrote.")
    settings = configuration.load(folder / model_folder.CONFIGURATION, PunctuationConfiguration)
    tokenizer = read_tokens(folder / model_folder.TOKENS, TokenizerConfiguration())
    assert isinstance(tokenizer, CharacterTokenizer)
    model = model_folder.filled(folder, lambda: PunctuationModel(settings, len(tokenizer)))
    return Punctuator(model.eval(), tokenizer, folder)


def vocabulary(texts: Sequence[str], minimum_count: int) -> CharacterTokenizer:
    """The characters that occur so often in texts, as a tokenizer; the others are unknown."""
    from collections import Counter

    counts = Counter(character for text in texts for character in text)
    return CharacterTokenizer.build("".join(c for c, count in counts.items() if count >= minimum_count and c.isalnum()))
