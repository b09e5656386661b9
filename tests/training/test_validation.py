from __future__ import annotations

import torch

from asr.model.recognizer import Encoded
from asr.search.greedy import greedy_search
from asr.search.language import prompt
from asr.training.validation import _written
from tests.search.multilingual import small_multilingual


def test_each_text_is_written_in_the_language_of_its_utterance() -> None:
    checkpoint = small_multilingual()
    encoded = Encoded(torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(1)) * 9, torch.tensor([9, 5, 9, 7]))
    samples = torch.tensor([2000, 1000, 2000, 1500])
    codes = ["zh", "", "de", "zh"]
    found = _written(checkpoint, encoded, samples, codes)
    others = 0
    for row, code in enumerate(codes):
        alone = Encoded(encoded.values[[row]], encoded.lengths[[row]])
        start = prompt(checkpoint, code or "en")
        (expected,) = greedy_search(checkpoint.model, checkpoint.tokenizer, alone, samples[[row]], start)
        assert found[row].tokens == expected.tokens
        (english,) = greedy_search(checkpoint.model, checkpoint.tokenizer, alone, samples[[row]])
        others += found[row].tokens != english.tokens
    assert others  # or the languages would not matter to this model
