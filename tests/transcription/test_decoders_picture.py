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
    LengthWay,
    ModelConfiguration,
    NonautoregressiveConfiguration,
)
from asr.model.recognizer import Recognizer
from asr.search.greedy import greedy_search
from asr.search.mask_predict import mask_predict_search
from asr.text.tokenizer import CharacterTokenizer
from asr.transcription import decoders_picture
from asr.transcription.decoders_picture import known_tokens, write


def untrained(both: bool = True, seed: int = 8, lengths: tuple[LengthWay, ...] = ("predictor", "ctc")) -> Checkpoint:
    torch.manual_seed(seed)
    tokenizer = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog"])
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=32, heads=2, feed_forward=32),
        decoder=DecoderConfiguration(layers=3, heads=2, feed_forward=64, scale_embedding=False, suppressed=(0, 1, 2)),
        nonautoregressive=NonautoregressiveConfiguration(layers=1, heads=2, feed_forward=32, lengths=lengths) if both else None,
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


def test_texts_that_are_written_anew_may_have_other_lengths(data: Path, tmp_path: Path) -> None:
    checkpoint = untrained(lengths=("alignment",))
    second = checkpoint.model.nonautoregressive
    assert checkpoint.model.ctc is not None
    assert second is not None
    with torch.no_grad():
        # As they begin, CTC says more than there may be, and the decoder what it reads.
        checkpoint.model.ctc.bias[checkpoint.tokenizer.blank] += 1.0
        for parameter in second.layers.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    known = known_tokens(checkpoint, data / "weather.wav", duration=0.6, iterations=3)
    assert known.rewritten
    lengths = {len(row) for row in known.nonautoregressive}
    assert len(lengths) > 1, lengths
    assert all(None not in row for row in known.nonautoregressive)
    write(known, tmp_path / "picture.png", "weather")
    assert imread(tmp_path / "picture.png").shape[1] >= 900


def test_what_is_new_is_what_a_list_of_changes_would_name() -> None:
    assert decoders_picture._kept(list("cat"), list("cut")) == {0, 2}
    assert decoders_picture._kept(list("he sat"), list("she sat")) == {1, 2, 3, 4, 5, 6}
    assert decoders_picture._kept([], list("a")) == set()


def test_what_cannot_be_drawn_is_one_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="has not both"):
        known_tokens(untrained(both=False), data / "weather.wav")
    monkeypatch.setattr(decoders_picture, "LONGEST_TEXT", 1)
    with pytest.raises(AudioError, match=re.escape("weather.wav: gives more than 1 tokens; choose less of it")):
        known_tokens(untrained(), data / "weather.wav")
