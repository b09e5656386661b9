"""CTC's best path against torchaudio's merging and a collapse written out."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.model.configuration import EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import ctc_greedy_search
from asr.text.tokenizer import CharacterTokenizer

merge_tokens = pytest.importorskip("torchaudio").functional.merge_tokens
TOKENIZER = CharacterTokenizer.build(["abc d"])


class Scores(Recognizer):
    """A recogniser whose CTC head says what the test wants."""

    def __init__(self, log_probabilities: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.log_probabilities = log_probabilities

    def ctc_log_probabilities(self, encoded: Encoded) -> Tensor:
        return self.log_probabilities


@given(st.lists(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=20), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=50)
def test_paths_collapse(paths: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    longest = max(1, *map(len, paths))
    logits = torch.randn(len(paths), longest, len(TOKENIZER), generator=generator)
    for row, path in enumerate(paths):
        for position, token in enumerate(path):
            logits[row, position, token] += 20
    log_probabilities = logits.log_softmax(dim=-1)
    encoded = Encoded(torch.zeros(len(paths), longest, 1), torch.tensor([len(path) for path in paths]))
    hypotheses = ctc_greedy_search(Scores(log_probabilities), TOKENIZER, encoded)
    assert len(hypotheses) == len(paths)
    for row, (path, hypothesis) in enumerate(zip(paths, hypotheses, strict=True)):
        expected = tuple(token for token, _ in groupby(path) if token != 0)
        assert hypothesis.tokens == expected
        assert hypothesis.text == "".join(" abcd"[token - 4] for token in expected if token >= 4).strip()
        chosen = [float(log_probabilities[row, position, token]) for position, token in enumerate(path)]
        assert hypothesis.score == pytest.approx(sum(chosen), abs=1e-4)
        if path:
            spans = merge_tokens(torch.tensor(path), torch.tensor(chosen), blank=0)
            assert hypothesis.tokens == tuple(span.token for span in spans)
            assert hypothesis.log_probabilities == pytest.approx([chosen[span.start] for span in spans])


def test_alone_and_in_a_batch_are_the_same() -> None:
    torch.manual_seed(6)
    model = Recognizer(
        ModelConfiguration(encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64), decoder=None), len(TOKENIZER)
    ).eval()
    lengths = [16000, 6000, 11111, 0]
    waveforms = torch.zeros(4, 16000)
    for row, length in enumerate(lengths):
        waveforms[row, :length] = torch.randn(length) * 0.1
    with torch.no_grad():
        together = ctc_greedy_search(model, TOKENIZER, model.encode(waveforms, torch.tensor(lengths)))
        for row, length in enumerate(lengths[:3]):
            encoded = model.encode(waveforms[row : row + 1, :length], torch.tensor([length]))
            (alone,) = ctc_greedy_search(model, TOKENIZER, encoded)
            assert alone.tokens == together[row].tokens
            assert alone.score == pytest.approx(together[row].score, abs=1e-3)
    assert together[3].text == ""
