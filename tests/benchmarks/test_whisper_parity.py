"""Whether Whisper's weights give here what they give in openai-whisper, on real speech.

``pytest tests/benchmarks/test_whisper_parity.py -s -o addopts= --timeout 3600 --openai-whisper tiny.en.pt --utterances 100``
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.audio import files
from asr.model.whisper import convert
from asr.search.greedy import greedy_search

TEACHER_FORCED = 20


def test_parity(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Encoder output and teacher-forced logits within 1e-3, greedy text identical on 99 of 100."""
    whisper = pytest.importorskip("whisper")
    path = pytestconfig.getoption("--openai-whisper") or pytest.skip("needs --openai-whisper tiny.en.pt")
    original = whisper.load_model(path, device="cpu").float().eval()
    checkpoint = convert(path)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    assert model.decoder is not None
    lines = (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t")[0] for line in lines if line.startswith("LibriSpeech/dev-extra/")]
    wanted = np.linspace(0, len(rows) - 1, pytestconfig.getoption("--utterances")).round().astype(int)
    encoder_error = logit_error = 0.0
    different: list[str] = []
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    prompt = [tokenizer.identifier(token) for token in model.decoder.configuration.prompt]
    for number, name in enumerate(rows[index] for index in wanted):
        samples = torch.from_numpy(files.read(corpora / name))
        with torch.inference_mode():
            mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples), original.dims.n_mels)
            expected = original.encoder(mel[None])
            encoded = model.encode(samples[None], torch.tensor([len(samples)]))
            [found] = greedy_search(model, tokenizer, encoded, [len(samples)])
            text = original.decode(mel, options).text
            if number < TEACHER_FORCED:
                encoder_error = max(encoder_error, float((encoded.values - expected).abs().max()))
                tokens = torch.tensor([[*prompt, *found.tokens]])
                logits = model.decoder(tokens, encoded.values, encoded.lengths)
                logit_error = max(logit_error, float((logits - original.decoder(tokens, expected)).abs().max()))
        if found.text.strip() != text.strip():
            different.append(f"{name}\n  here      {found.text}\n  original  {text}")
    print(
        f"\nencoder within {encoder_error:.1e}, logits within {logit_error:.1e} ({min(len(wanted), TEACHER_FORCED)} utterances)"
    )
    print(f"greedy text identical on {len(wanted) - len(different)} of {len(wanted)}")
    print("\n".join(different))
    assert encoder_error < 1e-3
    assert logit_error < 1e-3
    assert len(different) <= 0.01 * len(wanted)
