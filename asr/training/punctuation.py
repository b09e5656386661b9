"""A punctuation model learns from printed text what stands behind each character; the loop is in ``asr.training.text``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from asr.model import punctuation as punctuation_folder
from asr.model.punctuation import LONGEST, PunctuationModel, Punctuator
from asr.text.punctuation import MARKS, passages, separate
from asr.training import text
from asr.training.checkpoints import Progress
from asr.training.configuration import PunctuationRecipe
from asr.training.text import IGNORED, Text

_MINIMUM_COUNT = 3  # of a character in the training text


def train(recipe: PunctuationRecipe, report: Callable[[str], None] | None = None, resume: bool = False) -> Path:
    """Train a recipe: see ``asr.training.text.train``. Lines of the text are printed paragraphs."""
    return text.train(recipe, lambda texts, earlier: Marking(recipe, _build(recipe, texts, earlier)), report, resume)


@dataclass(frozen=True)
class Marking:
    """The task: the mark behind each character, or that there is none. A character and its mark are one number."""

    recipe: PunctuationRecipe
    checkpoint: Punctuator

    @property
    def unit(self) -> str:
        """See ``Task``."""
        return "character"

    def sequences(self, texts: Iterable[str]) -> list[Text]:
        """See ``Task``."""
        found = []
        for number, paragraph in enumerate(texts):
            for passage in passages(paragraph, LONGEST, (self.recipe.training.seed, number)):
                characters, marks = separate(passage)
                if characters:
                    tokens = np.array(self.checkpoint.tokens(characters), dtype=np.int32)
                    found.append(tokens * len(MARKS) + np.array(marks, dtype=np.int32))
        return found

    def loss(self, rows: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """See ``Task``."""
        asked = rows != IGNORED
        logits = self.checkpoint.model(rows.clamp(min=0) // len(MARKS), asked.sum(dim=1))
        return F.cross_entropy(logits[asked], rows[asked] % len(MARKS), label_smoothing=label_smoothing, reduction=reduction)

    def asked(self, rows: Tensor) -> int:
        """See ``Task``."""
        return int((rows != IGNORED).sum())

    def card(self, texts: int, answers: int, progress: Progress, metrics: dict[str, float] | None) -> str:
        """See ``Task``."""
        recipe, model = self.recipe, self.checkpoint.model
        parameters, characters = sum(each.numel() for each in model.parameters()), len(self.checkpoint.tokenizer)
        sources = ", ".join(Path(path).name for path in recipe.data.train)
        spent = f"{progress.step} steps, {progress.seconds / 3600:.2f} hours, {progress.precision}"
        rows = [
            f"# {recipe.name}: Mandarin punctuation",
            "",
            "- For `punctuation` in the configuration of a recogniser.",
            f"- Trained by `asr train-punctuation`, {spent}.",
            f"- Parameters: {parameters:,}; characters it knows: {characters:,}.",
            f"- Training text: {sources}; {texts:,} lines, {answers:,} characters.",
        ]
        if metrics:
            rows.append(f"- Validation: {metrics['loss']:.4f} nats a character.")
        return "\n".join(rows) + "\n"


@dataclass(frozen=True)
class MarkFigures:
    """How well a mark is restored; counts of characters behind which it stands in print, is written, and both."""

    printed: int
    written: int
    right: int

    @property
    def precision(self) -> float:
        """Share of what is written that is printed."""
        return self.right / max(self.written, 1)

    @property
    def recall(self) -> float:
        """Share of what is printed that is written."""
        return self.right / max(self.printed, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / max(self.printed + self.written, 1)


def figures(punctuator: Punctuator, texts: Sequence[str], seed: int = 1) -> dict[str, MarkFigures]:
    """``agreement`` on the passages of printed paragraphs."""
    return agreement(punctuator, [each for number, text in enumerate(texts) for each in passages(text, LONGEST, (seed, number))])


def agreement(punctuator: Punctuator, texts: Sequence[str]) -> dict[str, MarkFigures]:
    """Compare restored marks with those of printed texts, by mark, and all of them as ``all``."""
    counts = np.zeros((len(MARKS), 3), dtype=np.int64)
    for printed in texts:
        characters, marks = separate(printed)
        pairs = np.array([marks, punctuator.marks(characters)])
        for mark in range(1, len(MARKS)):
            there = pairs == mark
            counts[mark] += there[0].sum(), there[1].sum(), there.all(axis=0).sum()
    counts[0] = counts[1:].sum(axis=0)
    return {mark or "all": MarkFigures(*(int(count) for count in row)) for mark, row in zip(MARKS, counts, strict=True)}


def _build(recipe: PunctuationRecipe, texts: list[str], earlier: Path | None) -> Punctuator:
    """The model to train: of the earlier part of this run, or new."""
    settings = recipe.punctuation
    if earlier is not None:
        found = punctuation_folder.load(earlier)
        text.check_same(recipe, "punctuation", found.model.configuration, settings)
        return found
    tokenizer = punctuation_folder.vocabulary(texts, _MINIMUM_COUNT)
    return Punctuator(PunctuationModel(settings, len(tokenizer)), tokenizer)
