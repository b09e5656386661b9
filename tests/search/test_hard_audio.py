"""No search runs away on sounds that are no speech, on very short clips and on words cut in two; batches do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import asr
from asr.audio import files
from asr.model.recognizer import Encoded
from asr.search.bounds import length_bound
from asr.search.decoding import decode
from asr.search.options import DecodingOptions

RATE = files.SAMPLE_RATE
BEAM = DecodingOptions("autoregressive", beam_size=4)


def sounds(data: Path) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    time = np.arange(6 * RATE) / RATE
    speech = files.read(data / "welcome.wav")
    vowel = sum(np.sin(2 * np.pi * 120 * n * np.arange(30 * RATE) / RATE) / (1 + abs(120 * n - 700) / 200) for n in range(1, 30))
    chords = sum(np.sin(2 * np.pi * frequency * time) for frequency in (262, 330, 392)) * (1 + np.sin(2 * np.pi * 2 * time))
    made = {
        "silence": np.zeros(3 * RATE),
        "noise": 0.05 * random.standard_normal(5 * RATE),
        "chords": 0.05 * chords,
        "vowel": 0.03 * np.asarray(vowel),
        "cut in mid-word": speech[: int(1.27 * RATE)],
        "begins in mid-word": speech[int(0.93 * RATE) : int(2.1 * RATE)],
        **{f"{length} ms": speech[RATE : RATE + RATE * length // 1000] for length in (20, 50, 100, 200)},
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}


@pytest.mark.parametrize("options", [DecodingOptions("autoregressive"), BEAM], ids=["greedy", "beam"])
def test_texts_stay_short(data: Path, options: DecodingOptions) -> None:
    model = asr.load("en", "cpu", options)
    clips = sounds(data)
    order = sorted(clips, key=lambda name: len(clips[name]))
    for first in range(0, len(order), 5):
        names = order[first : first + 5]
        for name, found in zip(names, model.decode([clips[name] for name in names]), strict=True):
            assert len(found.tokens) <= length_bound(model.checkpoint.model, len(clips[name]), 2), name
            # Nobody says more than eight words a second; a guess at a clip of no speech is a few words.
            assert len(found.text.split()) <= max(8, 8 * len(clips[name]) / RATE), (name, found.text)
            if name == "vowel":
                assert len(found.text.split()) <= 40, found.text


def test_text_does_not_depend_on_the_batch(corpora: Path) -> None:
    # In eight bits the last digit of a float decides a rounding now and then, and that a token that was nearly another.
    checkpoint = asr.load("en", "cpu", precision="float32").checkpoint
    model = checkpoint.model
    paths = sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.opus"))[::41]
    # Of 1 to 8 seconds: most of a batch is padding.
    clips = [torch.from_numpy(files.read(path))[: seconds * RATE] for seconds, path in enumerate(paths[:8], 1)]

    def texts(size: int) -> list[str]:
        found = []
        for first in range(0, len(clips), size):
            group = clips[first : first + size]
            lengths = torch.tensor([len(clip) for clip in group])
            with torch.inference_mode():
                encoded = model.encode(torch.nn.utils.rnn.pad_sequence(group, batch_first=True), lengths)
                found += decode(model, checkpoint.tokenizer, Encoded(encoded.values, encoded.lengths), lengths, BEAM)
        return [each.text for each in found]

    alone = texts(1)
    assert texts(4) == alone
    assert texts(8) == alone
