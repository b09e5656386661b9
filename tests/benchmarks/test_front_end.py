"""Speed of the front end, one thread, 16 real utterances, beside torchaudio's and kaldi-native-fbank's.

``pytest tests/benchmarks/test_front_end.py -s`` prints the table. The rounds of all contenders take turns, so that
whatever else the machine does slows all of them; processor time is compared, not the clock's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torchaudio.compliance import kaldi

from asr.audio import files
from asr.audio.features import Filterbank, FilterbankConfiguration

ROUNDS = 15


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_front_end(corpora: Path) -> None:
    native = pytest.importorskip("kaldi_native_fbank")
    paths = sorted((corpora / "LibriSpeech-flac-sample").rglob("*.flac"))[:16]
    utterances = [torch.from_numpy(files.read(path)) for path in paths]
    lengths = torch.tensor([len(utterance) for utterance in utterances])
    padded = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    arrays = [utterance.numpy() for utterance in utterances]
    filterbank = Filterbank(FilterbankConfiguration())
    whisper = Filterbank(FilterbankConfiguration(convention="whisper"))
    options = native.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80

    def kaldi_native_fbank() -> None:
        for array in arrays:
            computer = native.OnlineFbank(options)
            computer.accept_waveform(16000, array)
            computer.input_finished()  # computes all frames; taking them out one by one is not counted

    def torchaudio_fbank() -> None:
        for utterance in utterances:
            kaldi.fbank(utterance[None], num_mel_bins=80)

    def one_by_one() -> None:
        for utterance in utterances:
            filterbank(utterance[None], torch.tensor([len(utterance)]))

    contenders: dict[str, Callable[[], object]] = {
        "torchaudio.compliance.kaldi.fbank": torchaudio_fbank,
        "kaldi-native-fbank": kaldi_native_fbank,
        "Filterbank, kaldi, batch of 16": lambda: filterbank(padded, lengths),
        "Filterbank, kaldi, one by one": one_by_one,
        "Filterbank, whisper, batch of 16": lambda: whisper(padded, lengths),
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, compute in contenders.items():
            start = time.process_time()
            compute()
            spent[name].append(time.process_time() - start)
    hours = int(lengths.sum()) / files.SAMPLE_RATE / 3600
    reference = statistics.median(spent["torchaudio.compliance.kaldi.fbank"])
    print(f"\n{len(paths)} utterances, {hours * 3600:.0f} s, one thread, median of {ROUNDS} rounds")
    print(f"{'':36}{'ms':>8}{'hours/s':>10}{'x torchaudio':>14}")
    for name, times in spent.items():
        median = statistics.median(times)
        print(f"{name:36}{median * 1e3:8.1f}{hours / median:10.2f}{reference / median:14.2f}")
