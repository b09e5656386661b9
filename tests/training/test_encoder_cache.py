from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.configuration import validate
from asr.corpora.batches import Batch
from asr.exceptions import TrainingError
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


def recognizer(seed: int, trained: int = 0) -> Recognizer:
    """A model of two encoder layers, the last ``trained`` of which have gradients."""
    torch.manual_seed(seed)
    encoder = {**MODEL.get("encoder", {}), "layers": 2}
    model = Recognizer(validate({**MODEL, "encoder": encoder}, ModelConfiguration, "test"), 9)
    model.encoder.requires_grad_(False)
    for layer in list(model.encoder.layers)[2 - trained :]:
        layer.requires_grad_(True)
    return model


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_the_second_time_is_the_first_and_both_are_the_encoders(batch: Batch, tmp_path: Path, trained: int) -> None:
    model = recognizer(0, trained).train()
    cache = EncoderCache(tmp_path, model)
    first, second = cache.read(batch, CPU), cache.read(batch, CPU)
    assert model.encoder.training
    assert first.layers == second.layers == 2 - trained
    with torch.no_grad():
        expected = model.eval().encode(batch.waveforms, batch.lengths)
        found = model.encoder.upper(first.values, first.lengths, first.layers)
    assert found[1].tolist() == expected.lengths.tolist()
    torch.testing.assert_close(found[0], expected.values, atol=2e-3, rtol=2e-3)
    assert torch.equal(first.values, second.values)
    # It is read, not computed: audio no longer matters.
    silent = Batch(batch.ids, torch.zeros_like(batch.waveforms), batch.lengths, batch.texts, batch.speakers)
    assert torch.equal(cache.read(silent, CPU).values, first.values)


def test_what_is_trained_above_the_frozen_layers_does_not_matter(batch: Batch, tmp_path: Path) -> None:
    model = recognizer(0, trained=1)
    first = EncoderCache(tmp_path, model).read(batch, CPU)
    for parameter in model.encoder.layers[1].parameters():
        torch.nn.init.normal_(parameter)
    silent = Batch(batch.ids, torch.zeros_like(batch.waveforms), batch.lengths, batch.texts, batch.speakers)
    assert torch.equal(EncoderCache(tmp_path, model).read(silent, CPU).values, first.values)
    # As many layers as are frozen now; what another number of them says is not read.
    model.encoder.layers[1].requires_grad_(False)
    assert not torch.allclose(EncoderCache(tmp_path, model).read(batch, CPU).values, first.values)


def test_another_encoder_reads_nothing_of_it(batch: Batch, tmp_path: Path) -> None:
    first = EncoderCache(tmp_path, recognizer(0)).read(batch, CPU)
    other = EncoderCache(tmp_path, recognizer(1)).read(batch, CPU)
    same = EncoderCache(tmp_path, recognizer(0)).read(batch, CPU)
    assert not torch.allclose(first.values, other.values)
    assert torch.equal(first.values, same.values)


def test_a_damaged_file_is_computed_again(batch: Batch, tmp_path: Path) -> None:
    cache = EncoderCache(tmp_path, recognizer(0))
    first = cache.read(batch, CPU)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cache.read(batch, CPU).values, first.values)


def test_a_stem_that_is_trained_cannot_be_kept(tmp_path: Path) -> None:
    model = recognizer(0)
    model.encoder.stem.requires_grad_(True)
    with pytest.raises(TrainingError, match=r"encoder\.stem is trained"):
        EncoderCache(tmp_path, model)
