"""Text files to an n-gram model file, for ``asr train-ngrams``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.exceptions import TrainingError
from asr.search import ngram
from asr.text.tokenizer import Tokenizer, TokenizerConfiguration, clean
from asr.training.ngrams import estimate, vocabulary
from asr.training.texts import lines

_WORDS = TokenizerConfiguration(case="lower", punctuation=False)


@dataclass(frozen=True)
class Trained:
    """What was made: file, sentences and tokens read, n-grams of each length."""

    path: Path
    sentences: int
    tokens: int
    ngrams: tuple[int, ...]


def train(
    texts: Sequence[Path],
    output: Path,
    *,
    order: int,
    tokenizer: Tokenizer | None = None,
    minimum_counts: Sequence[int] = (),
    minimum_word_count: int = 1,
) -> Trained:
    """Estimate a model of the text, one sentence a line, and write it.

    Args:
        texts: UTF-8, plain or ``.gz``.
        output: ``.arpa``, ``.arpa.gz`` or ``.safetensors``.
        order: length of the longest n-grams.
        tokenizer: of the recogniser whose tokens are modelled; None: words in lower case without punctuation.
        minimum_counts: see ``asr.training.ngrams.estimate``.
        minimum_word_count: rarer words are ``<unk>``.

    Raises:
        TrainingError: a text cannot be read or holds nothing, or the output has another suffix.
    """
    if not output.name.endswith((".arpa", ".arpa.gz", ".safetensors")):
        raise TrainingError(f"{output}: is no kind of n-gram file; name it .arpa, .arpa.gz or .safetensors.")
    if tokenizer is not None:
        special = {number for number in range(len(tokenizer)) if not tokenizer.symbol(number)}
        kept = [number for number in range(len(tokenizer)) if number not in special]
        tokens = vocabulary(tokenizer.tokens[number] for number in kept)
        numbers = {number: place for place, number in enumerate(kept, start=3)}
        sentences = [[numbers.get(token, 2) for token in tokenizer.encode(line)] for line in lines(texts)]
    else:
        split = [clean(line, _WORDS).split() for line in lines(texts)]
        counts = Counter(word for line in split for word in line)
        tokens = vocabulary(sorted(word for word, count in counts.items() if count >= minimum_word_count))
        words = {word: place for place, word in enumerate(tokens)}
        sentences = [[words.get(word, 2) for word in line] for line in split]
    sentences = [sentence for sentence in sentences if sentence]
    model = estimate(sentences, tokens, order, minimum_counts, "word" if tokenizer is None else "token")
    (ngram.write if output.suffix == ".safetensors" else ngram.write_arpa)(model, output)
    total = sum(len(sentence) for sentence in sentences)
    return Trained(output, len(sentences), total, tuple(len(level.keys) for level in model.levels))
