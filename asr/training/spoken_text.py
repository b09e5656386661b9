"""Text that is heard without being spoken: batches of what a text-to-encoder network makes of sentences.

What a network has learned by least squares is the mean of what it has met: too weak to be understood, and always the same. So
it is strengthened, and some of what it could not explain of real utterances is added, piece by piece from where the same sounds
stand side by side, as in concatenative synthesis (A. Hunt and A. Black 1996). Sounds are confused as the encoder confuses them;
durations and voices vary.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.audio.files import SAMPLE_RATE
from asr.exceptions import TrainingError
from asr.model import text_to_encoder
from asr.model.layers import length_mask
from asr.model.recognizer import Recognizer
from asr.model.text_to_encoder import VOICE_NOISE, Sounds, lay_out
from asr.synthesis.pronunciation import BETWEEN, PAUSE, units
from asr.training.alignment import SILENT, batches
from asr.training.configuration import SpokenTextConfiguration
from asr.training.encoder_cache import Lower, fingerprint, frozen_layers
from asr.training.texts import lines

# Seconds of silence: before the first sound, between two words, after the last sound.
_BEFORE, _BETWEEN, _AFTER = (0.08, 0.5), (0.1, 0.6), (0.16, 0.7)
_PAUSES = {PAUSE: 0.7, BETWEEN: 0.05}
_TEMPO, _JITTER = 0.2, 0.15  # of the logarithm of durations: of a sentence at most, of a sound one standard deviation
# Least squares find what is likely on the average: nearer to the mean than anything that is said.
_CONTRAST = (1.1, 1.3)
_LEAST_RESIDUAL = 0.4  # part of ``residual``
_NEIGHBOURS = 4  # units that are taken together at most
_SECONDS_PER_LETTER = {"en": 0.066, "zh": 0.22}
_TRIED = 200  # sentences, before a run begins


@dataclass(frozen=True)
class Heard:
    """Texts as if they were spoken: what the encoder's lower layers say of each.

    ``samples`` int64 (batch,) are those of utterances of such lengths, without the silence that is added to them.
    """

    texts: tuple[str, ...]
    lower: Lower
    samples: Tensor


class SpokenText:
    """Sentences in batches; what a batch is depends on its number, the seed and the generator that is given.

    Args:
        settings: ``data.text`` of a recipe.
        model: the recogniser that listens.
        seed: of the order of the sentences.
        fits: whether a text can be aligned to so many positions and read by the decoder; others are left out.

    Attributes:
        readable: share of the first sentences that can be pronounced.
        digest: of all that decides which sentences are in a batch, and how they are heard.

    Raises:
        TrainingError: a text cannot be read, holds nothing or nothing that can be pronounced, or the network imitates another
            encoder or layers that are trained.
        CheckpointError: the network cannot be read.
        ConfigurationError: the libraries of the extra ``synthesis`` are not installed.
    """

    def __init__(self, settings: SpokenTextConfiguration, model: Recognizer, seed: int, fits: Callable[[int, str], bool]) -> None:
        self.settings = settings
        self._fits = fits
        self.network = text_to_encoder.load(Path(settings.network))
        self._layers = self.network.configuration.encoder_layers
        frozen = frozen_layers(model)
        if self._layers > frozen:
            raise TrainingError(
                f"{settings.network}: imitates {self._layers} layers of the encoder, of which {frozen} are not trained; set "
                "training.learning_rates of the others to 0, or name a network of fewer layers."
            )
        encoder = fingerprint(model, self._layers)
        if self.network.configuration.encoder != encoder:
            raise TrainingError(f"{settings.network}: imitates another encoder; name this model in the network's recipe.")
        sentences = [line for line in lines([Path(path) for path in settings.sentences]) if line]
        if not sentences:
            raise TrainingError(f"data.text: {', '.join(settings.sentences)} holds no sentence.")
        self._numbers = {unit: number for number, unit in enumerate(self.network.configuration.units)}
        self._language = self.network.configuration.language
        self._rate = self.network.configuration.positions_per_second
        self._trailing = model.configuration.encoder.trailing_seconds
        tried = random.Random(seed).sample(sentences, min(_TRIED, len(sentences)))
        self.readable = sum(self._pronounced(sentence) is not None for sentence in tried) / len(tried)
        if not self.readable:
            raise TrainingError(
                f"data.text: no sentence of {', '.join(settings.sentences)} can be pronounced in the language of "
                f"{settings.network}, {self._language}; give text in words, numbers written out."
            )
        self._batches = self._plan(sentences, seed)
        content = settings.model_dump_json() + encoder + "\n\n".join("\n".join(batch) for batch in self._batches)
        self.digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        shares = self.network.confusions.double().numpy().copy()
        np.fill_diagonal(shares, 0.0)
        units_ = self.network.segments[:, 0].tolist()
        self._places: dict[tuple[int, ...], list[int]] = {}
        for size in range(1, _NEIGHBOURS + 1):
            for first in range(len(units_) - size + 1):
                self._places.setdefault(tuple(units_[first : first + size]), []).append(first)
        # What a unit is heard for where it is not heard as itself.
        self._shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)

    def _plan(self, sentences: Sequence[str], seed: int) -> list[list[str]]:
        """Sentences of similar length together, in an order of chance."""
        generator = random.Random(seed)
        each = _SECONDS_PER_LETTER[self._language] * self._rate
        rest = (sum(_BEFORE) / 2 + sum(_AFTER) / 2 + self._trailing) * self._rate
        lengths = [round(each * len(sentence) + rest) for sentence in sentences]
        return [[sentences[index] for index in batch] for batch in batches(lengths, self.settings.batch_positions, generator)]

    def batches(self, step: int, generator: np.random.Generator) -> list[Heard]:
        """The batches of a step; after the last sentence comes the first again, spoken in another way."""
        count = self.settings.batches
        numbers = range(step * count, (step + 1) * count)
        found = (self._batch(self._batches[number % len(self._batches)], generator) for number in numbers)
        return [heard for heard in found if heard is not None]

    @torch.no_grad()
    def _batch(self, sentences: Sequence[str], generator: np.random.Generator) -> Heard | None:
        """Sentences as they are heard; None where none can be pronounced."""
        read = [(text, self._sounds(pronounced, generator)) for text in sentences if (pronounced := self._pronounced(text))]
        if not read:
            return None
        voices = self._voices(len(read), generator)
        lasting = self.network.durations([sounds for _, sounds in read], voices)
        spoken = [
            lay_out(sounds, self._durations(sounds, each, generator)) for (_, sounds), each in zip(read, lasting, strict=True)
        ]
        most = self.settings.batch_positions
        kept = [
            row
            for row, (text, _) in enumerate(read)
            if len(spoken[row].units) <= most and self._fits(len(spoken[row].units), text)
        ]
        if not kept:
            return None
        values, lengths = self.network.speak([spoken[row] for row in kept], voices[kept])
        for row, index in enumerate(kept):
            residual = self._residual(read[index][1], spoken[index], generator)
            contrast, part = generator.uniform(*_CONTRAST), self.settings.residual * generator.uniform(_LEAST_RESIDUAL, 1)
            values[row, : len(residual)] = contrast * values[row, : len(residual)] + part * residual
        values = (values * self.network.deviation + self.network.mean) * length_mask(lengths, values.shape[1])[..., None]
        samples = (lengths / self._rate - self._trailing).clamp(min=0) * SAMPLE_RATE
        return Heard(tuple(read[row][0] for row in kept), Lower(values, lengths, self._layers), samples.long().clamp(min=1))

    def _pronounced(self, text: str) -> tuple[str, ...] | None:
        """Units of a sentence; None where one of them, or a sign in it, was not met by the network."""
        found = units(text, self._language)
        if not found or any(unit not in _PAUSES and unit not in self._numbers for unit in found):
            return None
        return found

    def _sounds(self, pronounced: Sequence[str], generator: np.random.Generator) -> list[int]:
        """Units with silence at both ends and at some marks; some are those that they are confused with."""
        rate = generator.random() * self.settings.confusion
        found = [SILENT]
        for unit in pronounced:
            if unit in _PAUSES:
                if generator.random() < _PAUSES[unit]:
                    found.append(SILENT)
            else:
                number = self._numbers[unit]
                if generator.random() < rate and self._shares[number].any():
                    number = int(generator.choice(len(self._shares), p=self._shares[number]))
                found.append(number)
        return [*found, SILENT]

    def _voices(self, count: int, generator: np.random.Generator) -> Tensor:
        """Voices between two that were heard each, (count, voice)."""
        first, second = (
            self.network.voice(self.network.voices[torch.from_numpy(generator.integers(len(self.network.voices), size=count))])
            for _ in range(2)
        )
        shares = torch.from_numpy(generator.uniform(0, 0.5, size=(count, 1))).float()
        noise = torch.from_numpy(generator.normal(size=tuple(first.shape))).float()
        between: Tensor = (1 - shares) * first + shares * second
        return between + VOICE_NOISE * noise

    def _durations(self, sentence: Sequence[int], lasting: Sequence[float], generator: np.random.Generator) -> list[float]:
        tempo = generator.uniform(-_TEMPO, _TEMPO)
        found = [
            generator.uniform(*_BETWEEN) * self._rate
            if unit == SILENT
            else positions * math.exp(tempo + _JITTER * generator.normal())
            for unit, positions in zip(sentence, lasting, strict=True)
        ]
        found[0] = generator.uniform(*_BEFORE) * self._rate
        found[-1] = (generator.uniform(*_AFTER) + self._trailing) * self._rate
        return found

    def _residual(self, sentence: Sequence[int], sounds: Sounds, generator: np.random.Generator) -> Tensor:
        """What the network did not explain where the same units stood side by side, (positions, output)."""
        segments = self.network.segments[self._similar(sentence, generator)]
        begin, length = segments[:, 1][sounds.occurrences], (segments[:, 2] - segments[:, 1])[sounds.occurrences]
        inside = (sounds.places[:, 0] * length).long().minimum(length - 1).clamp(min=0)
        found: Tensor = self.network.residuals[(begin + inside).clamp(max=len(self.network.residuals) - 1)]
        return found * (length > 0)[:, None]

    def _similar(self, sentence: Sequence[int], generator: np.random.Generator) -> list[int]:
        """A segment for each unit of a sentence: neighbours of it where as many as possible were neighbours, at random."""
        found: list[int] = []
        while len(found) < len(sentence):
            for size in range(_NEIGHBOURS, 0, -1):
                places = self._places.get(tuple(sentence[len(found) : len(found) + size]))
                if places:
                    first = places[int(generator.integers(len(places)))]
                    found.extend(range(first, first + min(size, len(sentence) - len(found))))
                    break
            else:
                found.append(len(self.network.segments) - 1)
        return found
