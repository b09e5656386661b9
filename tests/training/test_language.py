"""The language classifier learns, does not depend on padding or level, and is read back as it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.corpora import table
from asr.exceptions import CheckpointError, TrainingError
from asr.model.language import LanguageClassifier, load
from asr.training.language import measure, train


def _corpus(folder: Path, name: str, low: float, high: float) -> Path:
    """Ten recordings of noise in a band, which stands for a language."""
    generator = np.random.default_rng(int(low))
    rows = []
    for number in range(10):
        spectrum = np.fft.rfft(generator.normal(size=24_000))
        frequencies = np.fft.rfftfreq(24_000, 1 / 16_000)
        spectrum[(frequencies < low) | (frequencies > high)] *= 0.05
        samples = np.fft.irfft(spectrum)
        soundfile.write(folder / f"{name}{number}.wav", 0.3 * samples / np.abs(samples).max(), 16_000)
        rows.append(f'{{"audio": "{name}{number}.wav", "text": "x"}}\n')
    (folder / f"{name}.jsonl").write_text("".join(rows))
    return folder / f"{name}.jsonl"


def test_it_learns_and_is_read_back(tmp_path: Path) -> None:
    sources = {"low": table.read(_corpus(tmp_path, "low", 300, 1500)), "high": table.read(_corpus(tmp_path, "high", 1500, 3400))}
    model = train({name: [cuts] for name, cuts in sources.items()}, clips=10, epochs=25, batch_size=4, seed=1)
    right = measure(model, sources, clips=10)
    assert sum(each.right for each in right.values()) >= 18
    assert all(each.clips == 10 for each in right.values())
    model.save(tmp_path / "language")
    again = load(tmp_path / "language")
    assert again.languages == ("low", "high")
    sound = np.random.default_rng(0).normal(size=30_000).astype(np.float32) * 0.1
    for language, probability in again.identify(sound).items():
        assert probability == pytest.approx(model.identify(sound)[language], abs=5e-3)


def test_neither_padding_nor_level_counts() -> None:
    torch.manual_seed(0)
    model = LanguageClassifier(["en", "zh"]).eval()
    generator = torch.Generator().manual_seed(0)
    sounds = [0.1 * torch.randn(length, generator=generator) for length in (16_000, 20_123, 40_001)]
    lengths = torch.tensor([len(sound) for sound in sounds])
    batch = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    together = model(batch, lengths)
    for row, sound in enumerate(sounds):
        torch.testing.assert_close(model(sound[None], lengths[row : row + 1])[0], together[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model(0.1 * sound[None], lengths[row : row + 1])[0], together[row], atol=1e-2, rtol=1e-2)


def test_silence_is_undecided() -> None:
    model = LanguageClassifier(["en", "zh"]).eval()
    assert model.identify(np.zeros(16_000, dtype=np.float32)) == pytest.approx(
        model.identify(np.zeros(1, dtype=np.float32)), abs=1
    )
    assert model.identify(np.zeros(0, dtype=np.float32)) == {"en": 0.5, "zh": 0.5}


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="one language"):
        train({"en": []})
    with pytest.raises(CheckpointError, match="no language classifier"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(tmp_path)
