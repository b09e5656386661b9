"""Eight bits against the same arithmetic written out; precisions of a whole model against float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from asr.exceptions import ConfigurationError
from asr.model import attention, precision, storage
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import (
    DecoderConfiguration,
    EncoderConfiguration,
    ModelConfiguration,
    NonautoregressiveConfiguration,
)
from asr.model.precision import QuantizedEmbedding, QuantizedLinear, choose
from asr.model.recognizer import Recognizer
from asr.model.storage import quantize_rows
from asr.text.tokenizer import CharacterTokenizer

needs_eight_bits = pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="needs FBGEMM (x86)")
TOKENIZER = CharacterTokenizer.build(["abcdefghijklmnopqrstuvwxyz"])


def written_out(inputs: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, steps: int) -> torch.Tensor:
    """Each vector divided by its largest value and rounded to ``steps``; products summed as integers."""
    outputs = []
    for vector in inputs.double():
        largest = vector.abs().max()
        numbers = (vector / largest * steps).round() if largest else vector
        sums = torch.tensor([sum(int(a) * int(b) for a, b in zip(row, numbers, strict=True)) for row in rows])
        outputs.append(sums.double() * scale.double() * float(largest) / steps + bias.double())
    return torch.stack(outputs).float()


@needs_eight_bits
def test_linear_is_the_arithmetic_written_out() -> None:
    torch.manual_seed(0)
    matrix, bias = torch.randn(24, 40), torch.randn(24)
    inputs = torch.randn(5, 40) * torch.tensor([[1.0], [100.0], [1e-4], [0.0], [7.0]])
    rows, scale = quantize_rows(matrix)
    layer = QuantizedLinear(rows, scale, bias)
    # A value in the middle between two steps may go either way: one step of one weight.
    assert_close(layer(inputs), written_out(inputs, rows, scale, bias, layer.steps), rtol=1e-4, atol=1e-2)
    assert_close(layer(inputs)[3], bias)
    expected = torch.nn.functional.linear(inputs, matrix, bias)
    error = (layer(inputs) - expected).norm(dim=1)
    assert bool((error[[0, 1, 4]] < 0.02 * expected[[0, 1, 4]].norm(dim=1)).all())


@needs_eight_bits
def test_a_vector_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(1)
    layer = QuantizedLinear(*quantize_rows(torch.randn(64, 48)), torch.randn(64))
    inputs = torch.randn(3, 7, 48) * torch.logspace(-3, 3, 21).view(3, 7, 1)
    together = layer(inputs)
    for row in range(3):
        for position in range(7):
            assert torch.equal(layer(inputs[row : row + 1, position : position + 1])[0, 0], together[row, position])


def test_embedding_rows() -> None:
    matrix = torch.randn(30, 16)
    rows, scale = quantize_rows(matrix)
    tokens = torch.tensor([[3, 29], [0, 3]])
    assert_close(QuantizedEmbedding(rows, scale)(tokens), matrix[tokens], rtol=0, atol=float(scale.max()))


def checkpoint(block: str = "transformer") -> Checkpoint:
    torch.manual_seed(2)
    encoder = EncoderConfiguration(block=block, layers=2, width=32, heads=4, feed_forward=64, dropout=0.0)  # type: ignore[arg-type]
    decoder = DecoderConfiguration(layers=2, heads=4, feed_forward=64, dropout=0.0)
    model = Recognizer(ModelConfiguration(encoder=encoder, decoder=decoder, ctc=True), len(TOKENIZER)).eval()
    return Checkpoint(model, TOKENIZER)


def scores(model: Recognizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder's and CTC's log-probabilities for seeded noise, the decoder's step by step with its cache."""
    torch.manual_seed(3)
    waveforms, lengths = torch.randn(3, 16000) * 0.1, torch.tensor([16000, 9000, 12000])
    tokens = torch.randint(4, len(TOKENIZER), (3, 6))
    assert model.decoder is not None
    with torch.inference_mode():
        encoded = model.encode(waveforms, lengths)
        cache = model.decoder.cache()
        steps = [model.decoder(tokens[:, n : n + 1], encoded.values, encoded.lengths, cache) for n in range(6)]
        return torch.cat(steps, dim=1).log_softmax(-1), model.ctc_log_probabilities(encoded)


@pytest.mark.parametrize("block", ["transformer", "conformer"])
@pytest.mark.parametrize("stored", ["float32", "int8"])
@pytest.mark.parametrize("name", ["bfloat16", pytest.param("int8", marks=needs_eight_bits)])
def test_a_model_in_another_precision(name: precision.Precision, stored: storage.Storage, block: str, tmp_path: Path) -> None:
    model_folder.save(checkpoint(block), tmp_path, "", stored)
    exact, other = model_folder.load(tmp_path).model, model_folder.load(tmp_path, precision=name).model
    for expected, found in zip(scores(exact), scores(other), strict=True):
        assert found.dtype == torch.float32
        assert not torch.equal(expected, found)
        assert float((expected - found).abs().mean()) < 0.03
    assert other.parameter_counts() == exact.parameter_counts()


@needs_eight_bits
def test_stored_rows_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder.save(checkpoint(), tmp_path, "", "int8")

    def refuse(matrix: torch.Tensor) -> None:
        raise AssertionError("rounded again")

    monkeypatch.setattr(storage, "quantize_rows", refuse)
    assert model_folder.load(tmp_path, precision="int8").model.decoder is not None


def test_names() -> None:
    assert choose("float32", "cpu") == "float32"
    assert choose("auto", "cpu") in ("int8", "float32")
    with pytest.raises(ConfigurationError, match="float12"):
        choose("float12", "cpu")
    with pytest.raises(ConfigurationError, match="int8"):
        choose("int8", "cuda")


@pytest.mark.parametrize("name", ["float32", pytest.param("int8", marks=needs_eight_bits)])
def test_on_a_processor_an_utterance_has_the_same_bits_in_any_batch(name: precision.Precision, tmp_path: Path) -> None:
    model_folder.save(checkpoint(), tmp_path, "")
    model = model_folder.load(tmp_path, precision=name).model
    torch.manual_seed(4)
    waveforms, lengths = torch.randn(5, 16000) * 0.1, torch.tensor([16000, 0, 12000, 15999, 401])
    tokens = torch.randint(4, len(TOKENIZER), (5, 7))
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 4])
    assert model.decoder is not None
    with torch.inference_mode():
        features, frames = model.features(waveforms, lengths)
        together = model.encode_features(features, frames)
        cache = model.decoder.cache()
        cache.share(torch.arange(7), owners)
        spoken = [model.decoder(tokens[owners, n, None], together.values, together.lengths, cache) for n in range(7)]
        for row in range(5):
            alone = model.encode_features(features[row : row + 1, : max(int(frames[row]), 1)], frames[row : row + 1])
            size = int(alone.lengths)
            assert torch.equal(alone.values[0, :size], together.values[row, :size])
            rows = (owners == row).nonzero()[:, 0]
            if not len(rows):
                continue
            cache = model.decoder.cache()
            cache.share(rows, torch.zeros_like(rows))
            for n in range(7):
                step = model.decoder(tokens[owners[rows], n, None], alone.values, alone.lengths, cache)
                if name == "int8":  # sums of floats may come in another order for another number of rows
                    assert torch.equal(step, spoken[n][rows])
                else:
                    assert_close(step, spoken[n][rows], rtol=1e-4, atol=1e-5)


def test_on_a_processor_the_encoding_is_that_of_the_padded_batch() -> None:
    model = checkpoint().model
    torch.manual_seed(4)
    waveforms, lengths = torch.randn(5, 16000) * 0.1, torch.tensor([16000, 0, 12000, 15999, 401])
    features, frames = model.features(waveforms, lengths)
    expected = model.encode_features(features, frames)  # with gradients, in one piece
    with torch.inference_mode():
        found = model.encode_features(features, frames)
    assert torch.equal(found.lengths, expected.lengths)
    assert_close(found.values, expected.values[:, : found.values.shape[1]].detach(), rtol=1e-4, atol=1e-5)


@needs_eight_bits
def test_the_non_autoregressive_decoder_says_the_same_in_any_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In 16 bits, which rounds away what the number of queries changes in the last bit of a product in 32.
    monkeypatch.setattr(attention, "LONG", 4)
    encoder = EncoderConfiguration(layers=1, width=256, heads=4, feed_forward=64, dropout=0.0)
    second = NonautoregressiveConfiguration(layers=3, heads=4, feed_forward=512, dropout=0.0)
    torch.manual_seed(1)
    configuration = ModelConfiguration(encoder=encoder, decoder=None, nonautoregressive=second)
    model_folder.save(Checkpoint(Recognizer(configuration, len(TOKENIZER)).eval(), TOKENIZER), tmp_path, "")
    exact, model = (model_folder.load(tmp_path, precision=name).model.nonautoregressive for name in ("float32", "int8"))
    values, lengths = torch.randn(4, 700, 256), torch.tensor([700, 433, 150, 90])
    tokens, rows = torch.randint(4, len(TOKENIZER), (4, 160)), torch.tensor([160, 130, 50, 20])
    assert exact is not None
    assert model is not None
    with torch.inference_mode():
        memory = model.memory()
        for _ in range(2):  # fills the memory, and reads it
            together = model(tokens, rows, values, lengths, memory).log_softmax(-1)
            expected = exact(tokens, rows, values, lengths).log_softmax(-1)
            for row, (length, size) in enumerate(zip(lengths.tolist(), rows.tolist(), strict=True)):
                one = slice(row, row + 1)
                alone = model(tokens[one, :size], rows[one], values[one, :length], lengths[one]).log_softmax(-1)
                assert_close(alone[0], together[row, :size], rtol=0, atol=1e-5)
                assert_close(expected[row, :size], together[row, :size], rtol=0, atol=0.5)
