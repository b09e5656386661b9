"""Only words of the lexicon are said; without a choice among words the text is that of CTC's own beam."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.exceptions import ConfigurationError
from asr.search import lexicon
from asr.text.tokenizer import CharacterTokenizer
from asr.training.ngram_text import train

pytest.importorskip("flashlight")
TOKENIZER = CharacterTokenizer.build(["abcdefghijklmnopqrstuvwxyz"])


def posteriors(text: str, wrong: str = "") -> torch.Tensor:
    """What CTC says of a text, three positions a letter; letters of ``wrong`` are a little more probable than the text's."""
    logits = torch.zeros(3 * len(text), len(TOKENIZER))
    logits[:, 0] = 6
    for place, token in enumerate(TOKENIZER.encode(text)):
        logits[3 * place, 0] = 0
        logits[3 * place, token] = 8
        if wrong and wrong[place] != text[place]:
            logits[3 * place, TOKENIZER.encode(wrong)[place]] = 9
    return logits.log_softmax(dim=-1)


def test_a_word_that_is_not_there_is_not_said() -> None:
    words = lexicon.Lexicon(["the", "cat", "sat"])
    batch = torch.stack([posteriors("the cat sat"), posteriors("the cat sat", wrong="the cap sat")])
    found = words.search(batch, torch.tensor([33, 33]), TOKENIZER, 20, 1)
    assert [several[0].text for several in found] == ["the cat sat"] * 2
    for several in found:
        assert several[0].tokens == tuple(TOKENIZER.encode("the cat sat"))
        assert len(several[0].log_probabilities) == len(several[0].tokens)
    assert min(found[0][0].log_probabilities) > -0.5 > min(found[1][0].log_probabilities)


def test_the_language_model_decides_between_words(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    source = tmp_path / "text.txt"
    source.write_text("the cat sat\nthe cat sat\nthe cat ran\na cap fell\n" * 5)
    arpa = train([source], tmp_path / "words.arpa", order=3).path
    (tmp_path / "words.txt").write_text("the\ncat K AE T\nsat\ncap\n")
    batch = posteriors("the cat sat", wrong="the cap sat")[None]
    texts = {}
    for weight in (0.0, 3.0):
        words = lexicon.read(tmp_path / "words.txt", arpa, weight)
        texts[weight] = words.search(batch, torch.tensor([33]), TOKENIZER, 20, 1)[0][0].text
    assert texts == {0.0: "the cap sat", 3.0: "the cat sat"}


def test_what_cannot_be_a_lexicon(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigurationError, match=r"empty\.txt: holds no word"):
        lexicon.read(tmp_path / "empty.txt")
    with pytest.raises(ConfigurationError, match="no word of the lexicon can be spelled"):
        lexicon.Lexicon(["世界"]).search(torch.zeros(1, 2, len(TOKENIZER)), torch.tensor([2]), TOKENIZER, 5, 1)
