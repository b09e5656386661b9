"""A Transformer language model learns from plain text what follows each token; the loop is in ``asr.training.text``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from asr import pretrained
from asr.exceptions import ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model import language_model as language_model_folder
from asr.model.language_model import LanguageModelCheckpoint, LanguageModelConfiguration, TransformerLanguageModel
from asr.text.tokenizer import CharacterTokenizer, Tokenizer
from asr.training import text
from asr.training.checkpoints import Progress
from asr.training.configuration import LanguageModelRecipe
from asr.training.text import IGNORED, Text


def train(recipe: LanguageModelRecipe, report: Callable[[str], None] | None = None, resume: bool = False) -> Path:
    """Train a recipe: see ``asr.training.text.train``."""
    return text.train(recipe, lambda texts, earlier: Foreseeing(recipe, _build(recipe, texts, earlier)), report, resume)


@dataclass(frozen=True)
class Foreseeing:
    """The task: each token after those before it."""

    recipe: LanguageModelRecipe
    checkpoint: LanguageModelCheckpoint

    @property
    def unit(self) -> str:
        """See ``Task``."""
        return "token"

    def sequences(self, texts: Iterable[str]) -> list[Text]:
        """See ``Task``."""
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer
        settings = model.configuration
        return encode(texts, tokenizer, tokenizer.identifier(settings.start), settings.maximum_length)

    def loss(self, rows: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """See ``Task``."""
        logits = self.checkpoint.model(rows[:, :-1].clamp(min=0))
        return F.cross_entropy(
            logits.flatten(0, 1),
            rows[:, 1:].flatten(),
            ignore_index=IGNORED,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )

    def asked(self, rows: Tensor) -> int:
        """See ``Task``."""
        return int((rows[:, 1:] != IGNORED).sum())

    def card(self, texts: int, answers: int, progress: Progress, metrics: dict[str, float] | None) -> str:
        """See ``Task``."""
        return _card(self.recipe, self.checkpoint, texts, answers, progress, metrics)


def encode(texts: Iterable[str], tokenizer: Tokenizer, start: int, longest: int) -> list[Text]:
    """Start token, tokens and stop token of each text, int32 (length,); of a text that is too long only its beginning."""
    return [np.array([start, *tokenizer.encode(text), tokenizer.stop][:longest], dtype=np.int32) for text in texts]


def _build(recipe: LanguageModelRecipe, texts: list[str], earlier: Path | None) -> LanguageModelCheckpoint:
    """The model to train: of the earlier part of this run, or new."""
    settings = recipe.language_model
    if earlier is not None:
        found = language_model_folder.load(earlier)
        same = {"tokenizer", "start"} if recipe.model is not None else set()
        text.check_same(recipe, "language_model", found.model.configuration, settings, same)
        return found
    if recipe.model is not None:
        parent, tokenizer = model_folder.describe(pretrained.find(recipe.model))
        start = parent.decoder.prompt[0] if parent.decoder is not None else settings.start
        settings = settings.model_copy(update={"tokenizer": parent.tokenizer, "start": start})
        return _new(settings, tokenizer)
    if settings.tokenizer.kind != "character":
        raise ConfigurationError(
            f"recipe {recipe.name}: language_model.tokenizer.kind is {settings.tokenizer.kind}, whose vocabulary is not made "
            "from text; name a model that has it, as model: en."
        )
    return _new(settings, CharacterTokenizer.build(texts, settings.tokenizer))


def _new(settings: LanguageModelConfiguration, tokenizer: Tokenizer) -> LanguageModelCheckpoint:
    return LanguageModelCheckpoint(TransformerLanguageModel(settings, len(tokenizer)), tokenizer)  # type: ignore[arg-type]


def _card(
    recipe: LanguageModelRecipe,
    checkpoint: LanguageModelCheckpoint,
    texts: int,
    tokens: int,
    progress: Progress,
    metrics: dict[str, float] | None,
) -> str:
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    whose = f"those of {Path(recipe.model).name}" if recipe.model else "characters of the text"
    rows = [
        f"# {recipe.name}: a language model",
        "",
        "- For `--language-model` of a recogniser that writes the same tokens.",
        f"- Trained by `asr train-lm`, {progress.step} steps, {progress.seconds / 3600:.2f} hours, {progress.precision}.",
        f"- Parameters: {parameters:,}; tokens: {len(checkpoint.tokenizer):,}, {whose}.",
        f"- Training text: {', '.join(Path(path).name for path in recipe.data.train)}; {texts:,} lines, {tokens:,} tokens.",
    ]
    if metrics:
        source = ", ".join(Path(path).name for path in recipe.data.validation) or f"one line of {recipe.data.held_out}, held out"
        rows.append(f"- Validation ({source}): perplexity {metrics['perplexity']:.2f} a token.")
    return "\n".join(rows) + "\n"
