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


def test_long_memory(corpora: Path, pytestconfig: pytest.Config) -> None:
    """A search whose memory is read in 16 bits beside the same in 32: time and error rate on recordings of up to 28 s."""
    model = asr.load(pytestconfig.getoption("--model"), "cpu")
    decoder = model.checkpoint.model.decoder
    assert decoder is not None
    if decoder.long_type is None:
        pytest.skip("this processor does not multiply in bfloat16")
    lines = [line.split("\t") for line in (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if line[0].startswith("LibriSpeech/dev-extra/")]
    recordings: list[list[list[str]]] = []
    for row in rows[:: max(len(rows) // (3 * pytestconfig.getoption("--utterances")), 1)]:
        if recordings and sum(float(each[1]) for each in [*recordings[-1], row]) <= 28:
            recordings[-1].append(row)
        else:
            recordings.append([row])
    long = [each for each in recordings if sum(float(row[1]) for row in each) >= 20]
    sounds = [np.concatenate([files.read(corpora / row[0]) for row in each]) for each in long]
    references = {str(number): " ".join(row[3] for row in each) for number, each in enumerate(long)}
    seconds = sum(map(len, sounds)) / files.SAMPLE_RATE
    types, times = (None, decoder.long_type), {None: 0.0, decoder.long_type: 0.0}
    texts: dict[torch.dtype | None, list[str]] = {each: [] for each in types}
    for sound in sounds:
        encoded, lengths = model._encode([sound])
        for each in types:
            decoder.long_type = each
            began = time.process_time()
            texts[each] += [found.text for found in model._search(encoded, lengths)]
            times[each] += time.process_time() - began
    print(f"\n{len(sounds)} recordings of 20 to 28 s, {seconds / 60:.1f} min, one by one")
    for each in types:
        score = errors(references, dict(zip(references, texts[each], strict=True)), unit="word", normalizer="english")
        print(f"{each or torch.float32!s:16}{100 * score.rate:8.2f} % WER{times[each] / seconds:10.4f} s of search a second")
    assert all(texts[None])
