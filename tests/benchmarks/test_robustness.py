"""What a model writes where there is little to hear or much beside the speech, beside its parent.

``pytest tests/benchmarks/test_robustness.py -s -o addopts= --timeout 3600 --model en --parent FOLDER --utterances 60``
prints a table; ``--model zh`` hears Mandarin. Audio goes to the recogniser as it is, without voice activity detection. Everything
is drawn from fixed seeds, so that two runs measure the same sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import asr
from asr.audio import files
from asr.audio.augmentation import Samples, add_noise, generate_noise, telephone
from asr.audio.files import SAMPLE_RATE
from asr.scoring.errors import count
from asr.search.hypothesis import Hypothesis
from asr.training.nonspeech import nonspeech
from asr.transcription.transcriber import Transcriber

BATCH = 8
# Speech that no embedded model has heard in training, and how its errors are counted.
LISTS = {"en": "LibriSpeech/dev-extra/", "zh": "data_aishell/wav/dev/S0252/"}
COUNTED: dict[str, tuple[str, str]] = {"en": ("word", "english"), "zh": ("char", "mandarin")}


@dataclass(frozen=True)
class Speech:
    samples: Samples
    text: str
    speaker: str


def read(corpora: Path, wanted: int, language: str = "en") -> list[Speech]:
    """Utterances of dev-extra, or of AISHELL's S0252, evenly over speakers and chapters."""
    lines = (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line.startswith(LISTS[language])]
    chosen = [rows[round(index)] for index in np.linspace(0, len(rows) - 1, wanted)]
    return [Speech(files.read(corpora / path), text, speaker) for path, _, speaker, text in chosen]


def decode(model: Transcriber, sounds: list[Samples]) -> list[Hypothesis]:
    order = sorted(range(len(sounds)), key=lambda index: len(sounds[index]))
    found: dict[int, Hypothesis] = {}
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        found.update(zip(rows, model.decode([sounds[row] for row in rows]), strict=True))
    return [found[index] for index in range(len(sounds))]


def bounded(found: list[Hypothesis]) -> int:
    return sum(each.finish_reason != "stop" for each in found)


def written(found: list[Hypothesis], language: str) -> str:
    """What is measured where nothing should be written."""
    unit = "words" if language == "en" else "characters"
    count = sum(len(each.text.split()) if language == "en" else len(each.text) for each in found)
    return (
        f"{sum(bool(each.text) for each in found)} of {len(found)} with text, {count} {unit}, {bounded(found)} ended by a bound"
    )


def scored(speech: list[Speech], found: list[Hypothesis], language: str) -> str:
    unit, normalizer = COUNTED[language]
    references = {str(n): each.text for n, each in enumerate(speech)}
    texts = {str(n): each.text for n, each in enumerate(found)}
    score = count(references, texts, unit=unit, normalizer=normalizer)
    return f"{100 * score.rate:.1f} % ({int(score.utterances.table[:, 3].sum())} ins., {bounded(found)} ended by a bound)"


def at_peak(samples: Samples, level: float) -> Samples:
    """With its largest sample at so many dBFS, rounded to 16 bits."""
    scaled = samples / max(float(np.abs(samples).max()), 1e-9) * 10 ** (level / 20)
    return (np.round(scaled * 32767) / 32768).astype(np.float32)


def chords(seconds: float, generator: np.random.Generator) -> Samples:
    """Triads with overtones that swell and fade, a new one each half second."""
    total = np.zeros(int(seconds * SAMPLE_RATE))
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    for start in range(0, len(total) - len(time), len(time)):
        root = 110.0 * 2 ** (generator.integers(0, 24) / 12)
        for step in (0, 4, 7):
            frequency = root * 2 ** (step / 12)
            tone = sum(np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, 7))
            total[start : start + len(time)] += tone * np.exp(-3 * time) * np.minimum(time * 50, 1)
    return (0.2 * total / max(np.abs(total).max(), 1e-9)).astype(np.float32)


def babble(speech: list[Speech], voices: int, seconds: float, generator: np.random.Generator) -> Samples:
    """That many utterances at once."""
    total = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    for index in generator.choice(len(speech), voices, replace=False):
        samples = speech[index].samples
        total += np.resize(samples, len(total)) / max(float(np.sqrt(np.mean(samples**2))), 1e-9)
    return 0.05 * total / np.float32(np.sqrt(voices))


def joined(speech: list[Speech], longest: float) -> list[Speech]:
    """Neighbouring utterances of one speaker with half a second between them, as many as fit."""
    pause = np.zeros(SAMPLE_RATE // 2, dtype=np.float32)
    groups: list[list[Speech]] = [[speech[0]]]
    for before, each in pairwise(speech):
        length = sum(len(part.samples) + len(pause) for part in groups[-1]) + len(each.samples)
        if before.speaker == each.speaker and length <= longest * SAMPLE_RATE:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [
        Speech(
            np.concatenate([part for each in group for part in (each.samples, pause)])[: -len(pause)],
            " ".join(each.text for each in group),
            group[0].speaker,
        )
        for group in groups
        if len(group) > 1
    ]


def measurements(speech: list[Speech], language: str) -> list[tuple[str, Callable[[Transcriber], str]]]:
    """Names of what is measured, and how."""
    few = max(len(speech) // 2, 4)
    lengths = np.geomspace(0.3, 30, few)

    def nothing(make: Callable[[float, np.random.Generator], Samples]) -> Callable[[Transcriber], str]:
        sounds = [make(float(seconds), np.random.default_rng(n)) for n, seconds in enumerate(lengths)]
        return lambda model: written(decode(model, sounds), language)

    def changed(
        change: Callable[[Samples, np.random.Generator], Samples], said: list[Speech] = speech
    ) -> Callable[[Transcriber], str]:
        altered = [change(each.samples, np.random.default_rng(n)) for n, each in enumerate(said)]
        return lambda model: scored(said, decode(model, altered), language)

    def noisy(kind: str, ratio: float) -> Callable[[Transcriber], str]:
        return changed(lambda samples, rng: add_noise(samples, generate_noise(kind, len(samples), rng), ratio))

    def beginnings(seconds: float) -> Callable[[Transcriber], str]:
        return lambda model: written(decode(model, [each.samples[: size(seconds)] for each in speech]), language)

    def crowd(ratio: float, said: list[Speech] = speech) -> Callable[[Transcriber], str]:
        return changed(lambda samples, rng: add_noise(samples, babble(speech, 6, len(samples) / SAMPLE_RATE, rng), ratio), said)

    def size(seconds: float) -> int:
        return int(seconds * SAMPLE_RATE)

    long = joined(speech, 30.0)
    rows = [
        ("silence, 0.3 to 30 s", nothing(lambda seconds, _: np.zeros(size(seconds), dtype=np.float32))),
        ("white noise, -40 dBFS", nothing(lambda seconds, rng: 0.01 * generate_noise("white", size(seconds), rng))),
        ("pink noise, -20 dBFS", nothing(lambda seconds, rng: 0.1 * generate_noise("pink", size(seconds), rng))),
        ("hum", nothing(lambda seconds, rng: nonspeech("hum", size(seconds), rng))),
        ("clicks", nothing(lambda seconds, rng: nonspeech("clicks", size(seconds), rng))),
        ("melody of tones", nothing(lambda seconds, rng: nonspeech("tones", size(seconds), rng))),
        ("chords", nothing(chords)),
        ("babble of 6 voices", nothing(lambda seconds, rng: babble(speech, min(6, len(speech)), seconds, rng))),
        ("first 0.3 s of an utterance", beginnings(0.3)),
        ("first 1 s of an utterance", beginnings(1.0)),
        ("as recorded", changed(lambda samples, _: samples)),
        ("telephone, 300 to 3400 Hz at 8 kHz", changed(lambda samples, _: telephone(samples))),
        *((f"peak at {level} dBFS, 16 bit", changed(lambda samples, _, x=level: at_peak(samples, x))) for level in (-50, -30, 0)),
        *((f"pink noise, {ratio} dB", noisy("pink", ratio)) for ratio in (20, 10, 5, 0)),
        *((f"babble of 6 voices, {ratio} dB", crowd(ratio)) for ratio in (20, 10, 5, 0)),
    ]
    if long:
        name = f"{len(long)} of several utterances, up to 30 s"
        rows.append((name, changed(lambda samples, _: samples, long)))
        rows += [(f"{name}, babble of 6 voices, {ratio} dB", crowd(ratio, long)) for ratio in (10, 5)]
    return rows


def test_robustness(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Prints the table; asserts only that no decode failed."""
    torch.set_num_threads(1)
    names = [pytestconfig.getoption("--model"), pytestconfig.getoption("--parent")]
    models = [asr.load(name, "cpu") for name in names if name]
    language = "zh" if models[0].checkpoint.model.configuration.language == "zh" else "en"
    speech = read(corpora, pytestconfig.getoption("--utterances"), language)
    titles = [Path(name).name for name in names if name]
    lines = [
        f"| {len(speech)} utterances of {LISTS[language].split('/')[-2]} | {' | '.join(titles)} |",
        f"|---{'|---' * len(titles)}|",
    ]
    for name, measure in measurements(speech, language):
        lines.append(f"| {name} | {' | '.join(measure(model) for model in models)} |")
        print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(f"\n{table}")
    if report := pytestconfig.getoption("--report"):
        Path(report).write_text(table, encoding="utf-8")
