"""What the key/value cache saves: greedy steps with it, and with everything computed again for each token. What guesses save.

``pytest tests/benchmarks/test_greedy.py -s -o addopts= --timeout 3600 --model en --utterances 100`` prints both; one thread,
processor time.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import asr
from asr.audio import files
from asr.model.configuration import DecoderConfiguration
from asr.model.decoder import Decoder
from asr.search.options import DecodingOptions
from tests.search.toy import Passes

LENGTHS = (50, 200, 400)
SECONDS, VOCABULARY, WIDTH = 25, 32, 192


def cached(decoder: Decoder, encoded: torch.Tensor, lengths: torch.Tensor, count: int) -> list[int]:
    cache, token, found = decoder.cache(), torch.zeros(1, 1, dtype=torch.int64), []
    for _ in range(count):
        token = decoder(token, encoded, lengths, cache, last_only=True)[:, -1].argmax(-1, keepdim=True)
        found.append(int(token))
    return found


def recomputed(decoder: Decoder, encoded: torch.Tensor, lengths: torch.Tensor, count: int) -> list[int]:
    tokens = torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(count):
        best = decoder(tokens, encoded, lengths, last_only=True)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat((tokens, best), dim=1)
    return tokens[0, 1:].tolist()


def test_cache() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfiguration(layers=3, heads=4, feed_forward=768), WIDTH, VOCABULARY).eval()
    encoded, lengths = torch.randn(1, 25 * SECONDS, WIDTH), torch.tensor([25 * SECONDS])
    print(f"\n3 layers of width {WIDTH}, {25 * SECONDS} encoder positions ({SECONDS} s), one utterance")
    print(f"{'characters':>12}{'cached, s':>12}{'again, s':>12}{'ratio':>8}")
    with torch.inference_mode():
        cached(decoder, encoded, lengths, 5)
        for count in LENGTHS:
            times, texts = [], []
            for search in (cached, recomputed):
                began = time.process_time()
                texts.append(search(decoder, encoded, lengths, count))
                times.append(time.process_time() - began)
            assert texts[0] == texts[1]
            print(f"{count:12}{times[0]:12.3f}{times[1]:12.3f}{times[1] / times[0]:8.1f}")
    torch.set_num_threads(threads)


def test_guesses(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Utterances of dev-extra one by one, with guesses and without, in turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.opus"))
    paths = paths[:: max(1, len(paths) // pytestconfig.getoption("--utterances"))]
    sounds = [files.read(path) for path in paths]
    seconds = sum(len(each) for each in sounds) / files.SAMPLE_RATE
    models = [
        asr.load(pytestconfig.getoption("--model"), "cpu", DecodingOptions(beam_size=1, speculative=way)) for way in (False, True)
    ]
    assert models[1].options.guesser is not None, "the model has no draft"
    decoder = models[1].checkpoint.model.decoder
    assert decoder is not None
    passes = Passes(decoder)
    for model in models:
        model.decode(sounds[:1])
    passes.count, tokens, other, times = 0, 0, 0, [0.0, 0.0]
    for sound in sounds:
        texts = []
        for place, model in enumerate(models):
            began = time.process_time()
            (found,) = model.decode([sound])
            times[place] += time.process_time() - began
            texts.append(found.text)
        tokens += len(found.tokens) + 1
        other += texts[0] != texts[1]
    plain, guessing = (each / seconds for each in times)
    print(f"\n{len(sounds)} utterances, {seconds / 60:.1f} min: {plain:.4f} without guesses, {guessing:.4f} with them")
    print(f"({guessing / plain:.2f} of it); {tokens / passes.count:.2f} tokens a pass; {other} other texts")
    torch.set_num_threads(threads)
