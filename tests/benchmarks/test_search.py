"""Cost of the searches: CTC's beam beside torchaudio's on the same posteriors, beams beside greedy.

``pytest tests/benchmarks/test_search.py -s -o addopts=`` prints the tables; one thread, processor time, contenders take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import asr
from asr.audio import files
from asr.model.attention import MultiHeadAttention
from asr.scoring.errors import count as errors
from asr.search.ctc_beam import ctc_beam_search
from asr.search.decoding import decode
from asr.search.options import DecodingOptions
from asr.text.tokenizer import CharacterTokenizer

ROUNDS = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
POSITIONS_A_SECOND = 25


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def posteriors(tokenizer: CharacterTokenizer, count: int, seconds: float) -> Tensor:
    """What a CTC head says of letters: peaks of one position among blanks, now and then unsure of two letters."""
    random = np.random.default_rng(0)
    positions = int(seconds * POSITIONS_A_SECOND)
    logits = random.normal(0, 1, (count, positions, len(tokenizer)))
    logits[..., tokenizer.blank] += 8
    for row in range(count):
        for position in np.flatnonzero(random.random(positions) < 14 / POSITIONS_A_SECOND):  # 14 letters a second
            letters = random.integers(4, len(tokenizer), 2)
            logits[row, position, letters] += (12, 12 - random.exponential(3))
    return torch.from_numpy(logits).float().log_softmax(dim=-1)


def spent(contenders: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median processor time of each, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, compute in contenders.items():
            began = time.process_time()
            compute()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def test_ctc_beam() -> None:
    tokenizer = CharacterTokenizer.build([LETTERS + " a"])
    count, seconds = 16, 12.0
    log_probabilities = posteriors(tokenizer, count, seconds)
    lengths = torch.full((count,), log_probabilities.shape[1])
    contenders: dict[str, Callable[[], object]] = {
        "beam 10, batch of 16": lambda: ctc_beam_search(log_probabilities, lengths, tokenizer, 10),
        "beam 10, one by one": lambda: [
            ctc_beam_search(log_probabilities[row : row + 1], lengths[:1], tokenizer, 10) for row in range(count)
        ],
    }
    try:
        from torchaudio.models.decoder import ctc_decoder

        flashlight = ctc_decoder(
            None, list(tokenizer.tokens), beam_size=10, blank_token="<blank>", sil_token="<space>", unk_word="<unk>"
        )
        contenders["torchaudio ctc_decoder, beam 10"] = lambda: flashlight(log_probabilities, lengths)
    except ImportError:
        print("ctc_decoder needs flashlight-text")
    try:
        from pyctcdecode import build_ctcdecoder

        labels = ["" if tokenizer.blank == n else tokenizer.symbol(n) or f"<{n}>" for n in range(len(tokenizer))]
        theirs, matrices = build_ctcdecoder(labels), log_probabilities.numpy()
        contenders["pyctcdecode, beam 10"] = lambda: [theirs.decode(each, beam_width=10) for each in matrices]
    except ImportError:
        print("pyctcdecode asks for an older numpy than it needs: pip install --no-deps pyctcdecode pygtrie")
    print(f"\n{count} utterances of {seconds:.0f} s, {POSITIONS_A_SECOND} positions a second, {len(tokenizer)} tokens")
    for name, median in spent(contenders).items():
        print(f"{name:36}{1000 * median / (count * seconds):8.2f} ms a second of audio")


def test_beams(corpora: Path) -> None:
    checkpoint = asr.load("en", "cpu").checkpoint
    model = checkpoint.model
    paths = sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.opus"))[::31][:16]
    utterances = [torch.from_numpy(files.read(path)) for path in paths]
    lengths = torch.tensor([len(utterance) for utterance in utterances])
    padded = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    began = time.process_time()
    with torch.inference_mode():
        encoded = model.encode(padded, lengths)
    encoding = time.process_time() - began

    def search(**options: object) -> Callable[[], object]:
        chosen = DecodingOptions(**options)  # type: ignore[arg-type]
        return lambda: decode(model, checkpoint.tokenizer, encoded, lengths, chosen, checkpoint.ctc_tokenizer)

    contenders = {"greedy": search(decoder="autoregressive", beam_size=1)}
    for size, threshold in ((5, 8.0), (10, 8.0), (10, 20.0)):
        name = f"beam {size}, threshold {threshold:g}"
        contenders[name] = search(decoder="autoregressive", beam_size=size, beam_threshold=threshold)
    for size in (5, 10):
        contenders[f"joint, beam {size}"] = search(decoder="joint", beam_size=size, ctc_weight=0.05)
    times = spent(contenders, rounds=1)
    seconds = int(lengths.sum()) / files.SAMPLE_RATE
    print(f"\n{len(paths)} utterances, {seconds:.0f} s, in one batch; the encoder takes {encoding:.2f} s of processor time")
    for name, median in times.items():
        whole = (encoding + median) / (encoding + times["greedy"])
        print(f"{name:28}{median:8.2f} s{median / times['greedy']:8.2f} x greedy{whole:8.2f} x with the encoder")


def test_attention_in_16_bits(corpora: Path, pytestconfig: pytest.Config) -> None:
    """A model that attends in 16 bits beside the same in 32: time and error rate, one by one and in batches of 16."""
    model = asr.load(pytestconfig.getoption("--model"), "cpu")
    attentions = [module for module in model.checkpoint.model.modules() if isinstance(module, MultiHeadAttention)]
    types = (None, attentions[0].long_type)
    if types[1] is None:
        pytest.skip("this processor does not multiply in bfloat16")
    lines = [line.split("\t") for line in (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if line[0].startswith("LibriSpeech/dev-extra/")]
    rows = sorted(rows[:: max(len(rows) // pytestconfig.getoption("--utterances"), 1)], key=lambda row: float(row[1]))
    sounds = [files.read(corpora / row[0]) for row in rows]
    references = {str(number): row[3] for number, row in enumerate(rows)}
    seconds = sum(map(len, sounds)) / files.SAMPLE_RATE
    print(f"\n{len(sounds)} utterances, up to {len(sounds[-1]) / files.SAMPLE_RATE:.0f} s, {seconds / 60:.1f} min in all")
    for size in (1, 16):
        encoding, searching = dict.fromkeys(types, 0.0), dict.fromkeys(types, 0.0)
        texts: dict[torch.dtype | None, list[str]] = {each: [] for each in types}
        for first in range(0, len(sounds), size):
            for each in types:
                for attention in attentions:
                    attention.long_type = each
                began = time.process_time()
                encoded, lengths = model._encode(sounds[first : first + size])
                between = time.process_time()
                texts[each] += [found.text for found in model._search(encoded, lengths)]
                encoding[each] += between - began
                searching[each] += time.process_time() - between
        for each in types:
            score = errors(references, dict(zip(references, texts[each], strict=True)), unit="word", normalizer="english")
            print(
                f"batches of {size:<3}{each or torch.float32!s:16}{100 * score.rate:8.2f} % WER"
                f"{encoding[each] / seconds:9.4f} s of encoder and{searching[each] / seconds:8.4f} s of search a second"
            )
        assert all(texts[None])
