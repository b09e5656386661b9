"""Training of the language classifier: clips of each language, equally many of each, augmented and cut at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from numpy.typing import NDArray

from asr.audio.augmentation import AugmentationConfiguration, WaveformAugmentation
from asr.audio.files import SAMPLE_RATE, read
from asr.exceptions import AudioError, TrainingError
from asr.model.language import LISTENED_SECONDS, LanguageClassifier

_SHORTEST_SECONDS = 1.0
_AUGMENTATION = {
    "speed": {"factors": [0.9, 1.0, 1.1]},
    "reverberation": {"probability": 0.3},
    "noise": {"probability": 0.8, "lowest": 5, "highest": 30},
    "telephone": {"probability": 0.15},
}
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Accuracy:
    """Of one language: clips heard as that language, and all."""

    right: int
    clips: int


def train(
    sources: Mapping[str, Sequence[CutSet]],
    clips: int = 1000,
    epochs: int = 12,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> LanguageClassifier:
    """Train on so many clips of each language, shared equally among its sources, new pieces of them in each epoch.

    A source that is one voice or one microphone should not be a language's only one: the classifier would learn it.

    Raises:
        TrainingError: fewer than two languages.
        AudioError: a recording that cannot be read.
    """
    if len(sources) < 2:
        raise TrainingError("one language cannot be told from others; give sources of two or more.")
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = LanguageClassifier(list(sources))
    augmentation = WaveformAugmentation(AugmentationConfiguration.model_validate(_AUGMENTATION))
    sounds: list[tuple[Samples, int]] = []
    for label, sets in enumerate(sources.values()):
        for cuts in sets:
            sounds += [(each, label) for each in _read(cuts, -(-clips // len(sets)), generator)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    steps = epochs * -(-len(sounds) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = generator.permutation(len(sounds))
        for first in range(0, len(order), batch_size):
            rows = [sounds[index] for index in order[first : first + batch_size]]
            waveforms, lengths = _batch([augmentation(_piece(sound, generator), generator) for sound, _ in rows])
            loss = torch.nn.functional.cross_entropy(
                model(waveforms, lengths), torch.tensor([label for _, label in rows]), label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def measure(model: LanguageClassifier, sources: Mapping[str, CutSet], clips: int = 200, seed: int = 0) -> dict[str, Accuracy]:
    """Hear so many clips of each language from their beginning, as a transcription does."""
    generator = np.random.default_rng(seed)
    result = {}
    for language, cuts in sources.items():
        sounds = _read(cuts, clips, generator)
        heard = [model.identify(sound) for sound in sounds]
        right = sum(max(each, key=lambda code: each[code]) == language for each in heard)
        result[language] = Accuracy(right, len(sounds))
    return result


def _read(cuts: CutSet, number: int, generator: np.random.Generator) -> list[Samples]:
    """The beginnings of so many recordings, drawn without repetition."""
    paths = [Path(cut.recording.sources[0].source) for cut in cuts]
    chosen = [paths[index] for index in generator.permutation(len(paths))[:number]]
    # A little more than is listened to, so that a faster one is long enough.
    sounds = [read(path, duration=LISTENED_SECONDS * 1.5) for path in chosen]
    if not any(len(sound) for sound in sounds):
        raise AudioError(f"{chosen[0] if chosen else 'a language'}: holds no sound; give recordings with speech.")
    return [sound for sound in sounds if len(sound)]


def _piece(sound: Samples, generator: np.random.Generator) -> Samples:
    """A random part of 1 to 8 seconds."""
    length = min(len(sound), int(generator.uniform(_SHORTEST_SECONDS, LISTENED_SECONDS) * SAMPLE_RATE))
    first = int(generator.integers(0, len(sound) - length + 1))
    return sound[first : first + length]


def _batch(sounds: Sequence[Samples]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(sound) for sound in sounds])
    waveforms = torch.zeros(len(sounds), int(lengths.max()))
    for row, sound in enumerate(sounds):
        waveforms[row, : len(sound)] = torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32))
    return waveforms, lengths
