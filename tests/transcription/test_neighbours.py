"""The same text alone and in any batch, on real speech whose neighbours are many times as long."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import asr
from asr.audio import files


@pytest.fixture(params=["data", "corpora"])
def speech(request: pytest.FixtureRequest) -> list[NDArray[np.float32]]:
    """Utterances of about 2 s and of more than 15 s."""
    folder: Path = request.getfixturevalue(request.param)
    if request.param == "corpora":
        found = sorted((files.read(path) for path in sorted((folder / "LibriSpeech-flac-sample").rglob("*.flac"))), key=len)
        return [*found[:4], *found[-3:]]
    short = [files.read(path) for path in sorted((folder / "LibriSpeech").rglob("*.flac"))]
    pause = np.zeros(8000, dtype=np.float32)
    return [*short[:4], np.concatenate([part for each in short for part in (each, pause)])]


def test_text_does_not_depend_on_neighbours(speech: list[NDArray[np.float32]]) -> None:
    model = asr.load("en", device="cpu")
    seconds = [len(each) / files.SAMPLE_RATE for each in speech]
    assert max(seconds) > 4 * min(seconds)
    alone = [model.decode([each])[0] for each in speech]
    assert all(found.finish_reason == "stop" and found.text for found in alone)
    order = list(range(len(speech)))
    for seed in range(2):
        random.Random(seed).shuffle(order)
        together = model.decode([speech[index] for index in order])
        for index, found in zip(order, together, strict=True):
            assert found.text == alone[index].text
            assert found.tokens == alone[index].tokens
            if model.checkpoint.precision == "int8":
                # Some processors sum a batch in another order; padding and neighbours would change far more.
                assert found.log_probabilities == pytest.approx(alone[index].log_probabilities, rel=0, abs=1e-4)
            assert found.score == pytest.approx(alone[index].score, abs=1e-3)
