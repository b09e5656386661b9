from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.configuration import validate
from asr.corpora.batches import Batch
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.training.encoder_cache import EncoderCache
from tests.training.conftest import MODEL

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    lengths = torch.tensor([16_000, 7_000])
    waveforms = 0.1 * torch.randn(2, 16_000) * (torch.arange(16_000) < lengths[:, None])
    return Batch(("a/1", "b"), waveforms, lengths, ("", ""), ("", ""))


def recognizer(seed: int) -> Recognizer:
    torch.manual_seed(seed)
    return Recognizer(validate(MODEL, ModelConfiguration, "test"), 9)


def test_the_second_time_is_the_first_and_both_are_the_encoders(batch: Batch, tmp_path: Path) -> None:
    model = recognizer(0).train()
    cache = EncoderCache(tmp_path, model)
    first, second = cache.encode(batch, CPU), cache.encode(batch, CPU)
    assert model.encoder.training
    with torch.no_grad():
        expected = model.eval().encode(batch.waveforms, batch.lengths)
    for found in (first, second):
        assert found.lengths.tolist() == expected.lengths.tolist()
        torch.testing.assert_close(found.values, expected.values, atol=2e-3, rtol=2e-3)
    assert torch.equal(first.values, second.values)
    # It is read, not computed: audio no longer matters.
    silent = Batch(batch.ids, torch.zeros_like(batch.waveforms), batch.lengths, batch.texts, batch.speakers)
    assert torch.equal(cache.encode(silent, CPU).values, first.values)


def test_another_encoder_reads_nothing_of_it(batch: Batch, tmp_path: Path) -> None:
    first = EncoderCache(tmp_path, recognizer(0)).encode(batch, CPU)
    other = EncoderCache(tmp_path, recognizer(1)).encode(batch, CPU)
    same = EncoderCache(tmp_path, recognizer(0)).encode(batch, CPU)
    assert not torch.allclose(first.values, other.values)
    assert torch.equal(first.values, same.values)


def test_a_damaged_file_is_computed_again(batch: Batch, tmp_path: Path) -> None:
    cache = EncoderCache(tmp_path, recognizer(0))
    first = cache.encode(batch, CPU)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cache.encode(batch, CPU).values, first.values)
