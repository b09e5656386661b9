"""A Transformer language model: the recogniser's decoder without cross-attention, which reads text and hears nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model import checkpoint as model_folder
from asr.model.attention import KeyValueCache
from asr.model.configuration import DecoderConfiguration
from asr.model.decoder import Decoder
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer, TokenizerConfiguration, read_tokens


class LanguageModelConfiguration(StrictModel):
    """The model, as ``config.yaml`` of its folder has it."""

    kind: Literal["language_model"] = "language_model"
    tokenizer: TokenizerConfiguration = Field(default_factory=TokenizerConfiguration)  # type: ignore[arg-type]
    start: str = Field("<sos>", description="token that every text starts with")
    width: int = Field(256, ge=2)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(1024, ge=1)
    activation: Literal["relu", "gelu", "swish"] = "gelu"
    norm: Literal["before", "after"] = "before"
    dropout: float = Field(0.1, ge=0, lt=1)
    positions: Literal["sinusoidal", "learned"] = "learned"
    maximum_length: int = Field(448, ge=2, description="longest text, start token included")

    @model_validator(mode="after")
    def _divisible(self) -> LanguageModelConfiguration:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads, or is odd")
        return self

    def decoder(self) -> DecoderConfiguration:
        """The stack of layers."""
        names = ("layers", "heads", "feed_forward", "activation", "norm", "dropout", "positions", "maximum_length")
        return DecoderConfiguration(prompt=(self.start,), **{name: getattr(self, name) for name in names})


class TransformerLanguageModel(nn.Module):
    """Tokens so far in, scores of the next token out.

    Args:
        configuration: the model.
        vocabulary: number of tokens.
    """

    def __init__(self, configuration: LanguageModelConfiguration, vocabulary: int) -> None:
        super().__init__()
        self.configuration = configuration
        self.decoder = Decoder(configuration.decoder(), configuration.width, vocabulary, listens=False)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None, last_only: bool = False) -> Tensor:
        """Logits of every token's successor, float32 (batch, length, vocabulary); arguments as of ``Decoder``."""
        logits: Tensor = self.decoder(tokens, cache=cache, last_only=last_only)
        return logits


@dataclass(frozen=True)
class LanguageModelCheckpoint:
    """A language model and its tokenizer, as a folder holds them; ``asr.model.checkpoint.save`` writes it."""

    model: TransformerLanguageModel
    tokenizer: CharacterTokenizer | BytePairTokenizer
    folder: Path | None = None


def load(folder: Path, device: torch.device | str = "cpu") -> LanguageModelCheckpoint:
    """Read a checkpoint folder of a language model, in evaluation mode and float32.

    Raises:
        CheckpointError: a file is missing or does not fit, or the folder is a recogniser's.
        ConfigurationError: the configuration is not valid.
    """
    model_folder.check_files(folder)
    if model_folder.kind(folder) != "language_model":
        raise CheckpointError(f"{folder}: is no language model; give a folder that asr train-lm wrote.")
    settings = configuration.load(folder / model_folder.CONFIGURATION, LanguageModelConfiguration)
    tokenizer = read_tokens(folder / model_folder.TOKENS, settings.tokenizer)
    if settings.start not in tokenizer.tokens:
        raise CheckpointError(f"{folder}: the start token {settings.start} is not in {model_folder.TOKENS}; copy it again.")
    model = model_folder.filled(folder, lambda: TransformerLanguageModel(settings, len(tokenizer)))
    return LanguageModelCheckpoint(model.eval().to(device), tokenizer, folder)
