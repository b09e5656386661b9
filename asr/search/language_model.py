"""Language models in a search: n-grams of tokens or words, and a Transformer (shallow fusion, Gulcehre et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from asr.exceptions import CheckpointError, ConfigurationError
from asr.search import ngram
from asr.search.ngram import END, UNKNOWN, Ngrams
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import SPACE, Tokenizer, TokenizerConfiguration, clean

# Where at least so much of a model's vocabulary are the recogniser's tokens, it is a model of tokens.
_TOKENS_SHARE = 0.5
_PLAIN = TokenizerConfiguration(case="lower", punctuation=False)


class LanguageModel(Protocol):
    """What a search needs of a language model."""

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """A scorer of ``rows`` texts that have not begun, in the recogniser's tokens."""


def load(path: Path) -> LanguageModel:
    """Read a language model: a folder of ``asr train-lm``, ``.safetensors`` n-grams, ``.arpa(.gz)``, or KenLM's binary format.

    Raises:
        CheckpointError: there is no such file or folder, or it cannot be read.
        ConfigurationError: KenLM is needed and not installed.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; give an ARPA file, a KenLM binary, an n-gram model or a folder.")
    if path.is_dir():
        from asr.model.language_model import load as load_folder
        from asr.search.transformer_scorer import NeuralLanguageModel

        return NeuralLanguageModel(load_folder(path))
    if path.suffix == ".safetensors":
        return NgramLanguageModel(ngram.read(path))
    if path.name.endswith((".arpa", ".arpa.gz")):
        return NgramLanguageModel(ngram.read_arpa(path))
    return KenlmLanguageModel(path)


def load_mixture(names: str, folder: Path = Path()) -> LanguageModel:
    """Read one language model as ``load`` does, or several, whose paths have commas between them, as their mixture.

    Args:
        names: of the files or folders.
        folder: where they are.

    Raises:
        CheckpointError, ConfigurationError: as of ``load``.
    """
    whole = folder / names
    parts = [names] if whole.exists() else [name.strip() for name in names.split(",")]
    if not all(parts):
        raise CheckpointError(f"'{names}': a language model's name is missing beside a comma; write A,B.")
    models = [load(folder / name) for name in parts]
    return models[0] if len(models) == 1 else MixedLanguageModel(models)


def score_texts(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[Sequence[int]]) -> list[float]:
    """Natural log-probability of each text of tokens, its end included."""
    if not texts:
        return []
    scorer = model.scorer(tokenizer, len(texts))
    rows = torch.arange(len(texts))
    totals = torch.zeros(len(texts), dtype=torch.float64)
    lengths = torch.tensor([len(text) for text in texts])
    longest = int(lengths.max())
    # What follows a text's end is read as well, and not counted.
    padded = torch.tensor([[*text, *[tokenizer.stop] * (longest - len(text) + 1)] for text in texts])
    for place in range(longest + 1):
        counts = place <= lengths
        totals += torch.where(counts, scorer.score(padded[:, place : place + 1])[:, 0].cpu(), 0.0)
        if place < longest:
            # A text that has ended goes on with something that can be read again.
            scorer.advance(rows, torch.where(place < lengths, padded[:, place], padded[:, 0]))
    return totals.tolist()


class FlooredLanguageModel:
    """A language model that says of tokens of Latin letters no less than a floor.

    In Mandarin text such words are few and each is another, so that how seldom they were counted says nothing of what was heard.

    Args:
        model: any language model.
        floor: least log-probability of such a token, in nats.
    """

    def __init__(self, model: LanguageModel, floor: float) -> None:
        self.model = model
        self.floor = floor

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """See ``LanguageModel``."""
        latin = _latin(tokenizer).to(device)  # type: ignore[arg-type]
        return _FlooredScorer(self.model.scorer(tokenizer, rows, device), latin, self.floor)


@lru_cache(maxsize=4)
def _latin(tokenizer: Tokenizer) -> Tensor:
    """Which tokens are Latin letters, alone or behind a space: bool (vocabulary,)."""
    pieces = [tokenizer.piece(token).strip() for token in range(len(tokenizer))]
    return torch.tensor([piece.isascii() and piece.isalpha() for piece in pieces])


class _FlooredScorer:
    def __init__(self, scorer: PrefixScorer, latin: Tensor, floor: float) -> None:
        self._scorer = scorer
        self._latin = latin
        self._floor = floor
        self.gain = scorer.gain

    def score(self, candidates: Tensor) -> Tensor:
        scores = self._scorer.score(candidates)
        return torch.where(self._latin[candidates], scores.clamp(min=self._floor), scores)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        self._scorer.advance(rows, tokens)


class MixedLanguageModel:
    """The mean of the probabilities that several models of the same tokens give to each token (Jelinek and Mercer 1980)."""

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        self.models = tuple(models)

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """See ``LanguageModel``.

        Raises:
            ConfigurationError: some are of the recogniser's tokens and some of words, which are scored at other places.
        """
        scorers = [model.scorer(tokenizer, rows, device) for model in self.models]
        if len({isinstance(scorer, _WordScorer) for scorer in scorers}) > 1:
            raise ConfigurationError("a language model of words cannot be mixed with one of tokens; give models of one kind.")
        return _MixedScorer(scorers)


class _MixedScorer:
    gain = 0.0

    def __init__(self, scorers: Sequence[PrefixScorer]) -> None:
        self._scorers = scorers

    def score(self, candidates: Tensor) -> Tensor:
        scores = torch.stack([scorer.score(candidates) for scorer in self._scorers])
        return scores.logsumexp(dim=0) - math.log(len(self._scorers))

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        for scorer in self._scorers:
            scorer.advance(rows, tokens)


class NgramLanguageModel:
    """N-grams of the recogniser's tokens, or of words where few of its tokens are in the vocabulary."""

    def __init__(self, model: Ngrams) -> None:
        self.model = model

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """See ``LanguageModel``."""
        numbers = {token: number for number, token in enumerate(self.model.tokens)}
        known = sum(token in numbers for token in tokenizer.tokens)
        if self.model.unit == "token" or known >= _TOKENS_SHARE * (len(numbers) - 3):
            unknown = numbers[UNKNOWN]
            mapping = torch.tensor([numbers.get(token, unknown) for token in tokenizer.tokens])
            mapping[tokenizer.stop] = numbers[END]
            return _NgramScorer(self.model, mapping, rows)
        return _WordScorer(_NgramWords(self.model), tokenizer, rows)


class _NgramScorer:
    """N-grams of tokens: a few binary searches for all candidates of all rows."""

    gain = 0.0

    def __init__(self, model: Ngrams, mapping: Tensor, rows: int) -> None:
        self._model = model
        self._mapping = mapping
        self._contexts = model.begin(rows)

    def score(self, candidates: Tensor) -> Tensor:
        return self._model.score(self._contexts, self._mapping[candidates.cpu()]).double().to(candidates.device)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        contexts, tokens = self._contexts[rows.cpu()], tokens.cpu()
        grows = (tokens >= 0).nonzero()[:, 0]
        if len(grows):
            contexts[grows] = self._model.advance(contexts[grows], self._mapping[tokens[grows]])
        self._contexts = contexts


class _Words(Protocol):
    """A model of words that is asked one at a time; states are never changed."""

    def begin(self) -> Any:
        """State before the first word."""

    def follow(self, state: Any, word: str | None) -> tuple[float, Any]:
        """Natural log-probability of a word, None for the end, and the state after it."""


class _NgramWords:
    def __init__(self, model: Ngrams) -> None:
        self._model = model
        self._numbers = {token: number for number, token in enumerate(model.tokens)}
        # Official models of English are written in capitals.
        self._upper = "THE" in self._numbers and "the" not in self._numbers

    def begin(self) -> Tensor:
        return self._model.begin(1)

    def follow(self, state: Tensor, word: str | None) -> tuple[float, Tensor]:
        written = END if word is None else word.upper() if self._upper else word
        token = self._numbers.get(written, self._numbers[UNKNOWN])
        score = float(self._model.score(state, torch.tensor([[token]])))
        return score, self._model.advance(state, torch.tensor([token]))


class KenlmLanguageModel:
    """A model that KenLM reads (Heafield 2011): its binary format, and ARPA files of any size.

    Raises:
        ConfigurationError: KenLM is not installed.
        CheckpointError: the file is not a model.
    """

    def __init__(self, path: Path) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise ConfigurationError(
                f"{path}: needs KenLM, which is not installed; pip install 'asr[language-models]', or give an ARPA file."
            ) from error
        try:
            self._model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{path}: is not a KenLM or ARPA model; give another file.") from error
        self._state = kenlm.State

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """See ``LanguageModel``: of tokens where the model knows most of them, and of words otherwise."""
        written = [token for token in tokenizer.tokens if not token.startswith("<") or token == SPACE]
        if SPACE in self._model and sum(token in self._model for token in written) >= _TOKENS_SHARE * len(written):
            return _TokenwiseScorer(self, tokenizer, rows)
        if " " not in "".join(tokenizer.symbol(number) for number in range(len(tokenizer))):
            return _TokenwiseScorer(self, tokenizer, rows)
        return _WordScorer(self, tokenizer, rows)

    def begin(self) -> Any:
        """State before the first word."""
        state = self._state()
        self._model.BeginSentenceWrite(state)
        return state

    def follow(self, state: Any, word: str | None) -> tuple[float, Any]:
        """Natural log-probability of a word, None for the end, and the state after it."""
        after = self._state()
        written = END if word is None else word
        if word is not None and written not in self._model and written.upper() in self._model:
            written = written.upper()
        return self._model.BaseScore(state, written, after) * math.log(10), after


class _TokenwiseScorer:
    """The recogniser's tokens asked one at a time."""

    gain = 0.0

    def __init__(self, words: _Words, tokenizer: Tokenizer, rows: int) -> None:
        self._words = words
        self._tokenizer = tokenizer
        self._states = [words.begin()] * rows

    def score(self, candidates: Tensor) -> Tensor:
        scores = [
            [self._words.follow(state, self._written(token))[0] for token in tokens]
            for state, tokens in zip(self._states, candidates.tolist(), strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float64, device=candidates.device).reshape(candidates.shape)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        self._states = [
            self._words.follow(self._states[row], self._written(token))[1] if token >= 0 else self._states[row]
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)
        ]

    def _written(self, token: int) -> str | None:
        return None if token == self._tokenizer.stop else self._tokenizer.tokens[token]


class _WordScorer:
    """Words, each scored when the next one begins, or the text ends: in lower case and without punctuation."""

    gain = 0.0

    def __init__(self, words: _Words, tokenizer: Tokenizer, rows: int) -> None:
        self._words = words
        self._stop = tokenizer.stop
        self._symbols = [tokenizer.symbol(number) for number in range(len(tokenizer))]
        self._begins = torch.tensor([symbol.startswith(" ") for symbol in self._symbols])
        # Of each text the state after its last whole word, and what has been written of the next.
        self._texts: list[tuple[Any, str]] = [(words.begin(), "")] * rows

    def score(self, candidates: Tensor) -> Tensor:
        inside = candidates.cpu()
        ended = [self._ended(*text) for text in self._texts]
        word = torch.tensor([score for score, _ in ended], dtype=torch.float64)[:, None]
        end = torch.tensor([score + self._words.follow(state, None)[0] for score, state in ended], dtype=torch.float64)[:, None]
        scores = torch.where(self._begins[inside], word, 0.0)
        return torch.where(inside == self._stop, end, scores).to(candidates.device)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        texts = []
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            state, written = self._texts[row]
            symbol = self._symbols[token] if token >= 0 else ""
            if symbol.startswith(" "):
                state, written = self._ended(state, written)[1], ""
            texts.append((state, written + symbol))
        self._texts = texts

    def _ended(self, state: Any, written: str) -> tuple[float, Any]:
        """Score of what is written as whole words, and the state after them."""
        total = 0.0
        for word in clean(written, _PLAIN).split():
            score, state = self._words.follow(state, word)
            total += score
        return total, state
