"""What the key/value cache saves: greedy steps with it, and with everything computed again for each token.

``pytest tests/benchmarks/test_greedy.py -s`` prints the table; one thread, processor time.
"""

from __future__ import annotations

import time

import torch

from asr.model.configuration import DecoderConfiguration
from asr.model.decoder import Decoder

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
