"""Our Transformer with Whisper's kind of weights against openai-whisper itself, on a small random model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from asr.exceptions import CheckpointError
from asr.model import checkpoint
from asr.model.whisper import convert

whisper = pytest.importorskip("whisper")


def test_a_converted_model_equals_its_origin(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = whisper.model.ModelDimensions(80, 1500, 32, 4, 2, 51864, 448, 32, 4, 2)
    origin = whisper.model.Whisper(sizes).eval()
    for parameter in origin.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    origin.encoder.positional_embedding.copy_(origin.encoder.positional_embedding.half().float())
    torch.save({"dims": asdict(sizes), "model_state_dict": origin.state_dict()}, tmp_path / "random.pt")
    checkpoint.save(convert(tmp_path / "random.pt"), tmp_path / "ours", "a card")
    ours = checkpoint.load(tmp_path / "ours")
    audio = torch.randn(40000) * 0.1
    tokens = torch.randint(0, 50000, (1, 20))
    with torch.no_grad():
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio))[None]
        encoded = ours.model.encode(audio[None], torch.tensor([40000]))
        torch.testing.assert_close(encoded.values, origin.encoder(mel), atol=1e-3, rtol=0)
        logits = ours.model.decoder(tokens, encoded.values, encoded.lengths)
        torch.testing.assert_close(logits, origin.decoder(tokens, encoded.values), atol=1e-3, rtol=1e-4)
    tokenizer = whisper.tokenizer.get_tokenizer(False)
    text = "It's 10,000 leagues, they'd say — naïvely."
    assert ours.tokenizer.encode(text) == tokenizer.encode(text)
    suppressed = {*tokenizer.non_speech_tokens, *range(50257, 51864)}
    assert set(ours.model.configuration.decoder.suppressed) == suppressed


@pytest.mark.parametrize("content", [b"", b"lmgg", b"not a model at all"])
def test_a_foreign_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.bin"):
        convert(tmp_path / "model.bin")
