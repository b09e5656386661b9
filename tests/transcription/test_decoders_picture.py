"""What two decoders know at each step, against what their searches return."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from asr.audio import files
from asr.exceptions import AudioError, ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import (
    DecoderConfiguration,
    EncoderConfiguration,
    ModelConfiguration,
    NonautoregressiveConfiguration,
)
from asr.model.recognizer import Recognizer
from asr.search.greedy import greedy_search
from asr.search.mask_predict import mask_predict_search
from asr.text.tokenizer import CharacterTokenizer
from asr.transcription import decoders_picture
from asr.transcription.decoders_picture import known_tokens, write


def untrained(both: bool = True, seed: int = 8) -> Checkpoint:
    torch.manual_seed(seed)
    tokenizer = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog"])
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=32, heads=2, feed_forward=32),
        decoder=DecoderConfiguration(layers=3, heads=2, feed_forward=64, scale_embedding=False, suppressed=(0, 1, 2)),
        nonautoregressive=NonautoregressiveConfiguration(layers=1, heads=2, feed_forward=32) if both else None,
    )
    return Checkpoint(Recognizer(settings, len(tokenizer)).eval(), tokenizer)


def test_rows_are_what_the_searches_found(data: Path, tmp_path: Path) -> None:
    checkpoint = untrained()
    known = known_tokens(checkpoint, data / "weather.wav", duration=1.0, iterations=3)
    samples = torch.from_numpy(files.read(data / "weather.wav", duration=1.0))[None]
    lengths = torch.tensor([samples.shape[1]])
    with torch.inference_mode():
        encoded = checkpoint.model.encode(samples, lengths)
        (greedy,) = greedy_search(checkpoint.model, checkpoint.tokenizer, encoded, lengths)
        (parallel,) = mask_predict_search(checkpoint.model, checkpoint.tokenizer, encoded, lengths, iterations=3)
    symbols = [checkpoint.tokenizer.symbol(token) for token in greedy.tokens]
    assert len(symbols) > 3
    for step, row in enumerate(known.autoregressive):
        assert [*row[:step]] == [*symbols, "<eos>"][:step]
        assert set(row[step:]) <= {None}
    assert None not in known.autoregressive[-1]
    # One row before each pass and one after the last; every pass knows at least what the one before knew where it is kept.
    assert len(known.nonautoregressive) == 4
    hidden = [row.count(None) for row in known.nonautoregressive]
    assert hidden[0] > 0
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[-1] == 0
    text = "".join(token for token in known.nonautoregressive[-1] if token and len(token) == 1)
    assert text.strip() == parallel.text
    write(known, tmp_path / "picture.png", "weather")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert imread(tmp_path / "picture.png").shape[1] >= 900


def test_what_cannot_be_drawn_is_one_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="has not both"):
        known_tokens(untrained(both=False), data / "weather.wav")
    monkeypatch.setattr(decoders_picture, "LONGEST_TEXT", 1)
    with pytest.raises(AudioError, match=re.escape("weather.wav: gives more than 1 tokens; choose less of it")):
        known_tokens(untrained(), data / "weather.wav")
