"""A Transformer language model in a search (shallow fusion, Gulcehre et al. 2015), one step of its cache a token."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.model.language_model import LanguageModelCheckpoint, TransformerLanguageModel
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import Tokenizer

_NOT_KNOWN = -1


class NeuralLanguageModel:
    """A Transformer over the recogniser's tokens; a language model as far as a search is concerned.

    Args:
        checkpoint: the model, whose tokens must hold all that the recogniser writes.
    """

    def __init__(self, checkpoint: LanguageModelCheckpoint) -> None:
        self.checkpoint = checkpoint
        self._numbers = {token: number for number, token in enumerate(checkpoint.tokenizer.tokens)}

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """See ``LanguageModel``.

        Raises:
            ConfigurationError: the recogniser writes tokens that the language model does not know.
        """
        own = self.checkpoint.tokenizer
        missing = [n for n, t in enumerate(tokenizer.tokens) if tokenizer.symbol(n) and t not in self._numbers]
        if missing:
            raise ConfigurationError(
                f"{self.checkpoint.folder}: the language model does not know {len(missing)} of the {len(tokenizer)} tokens that "
                f"are written here, '{tokenizer.symbol(missing[0])}' for one; "
                "train it with asr train-lm --model of this recogniser."
            )
        model = self.checkpoint.model
        if torch.device(device).type != "cpu":
            model.to(device)  # where it stays: tokens may come from anywhere
        place = next(model.parameters()).device
        mapping = torch.tensor([self._numbers.get(token, _NOT_KNOWN) for token in tokenizer.tokens], device=place)
        mapping[tokenizer.stop] = own.stop
        return _TransformerScorer(model, mapping, own.identifier(model.configuration.start), rows)


class _TransformerScorer:
    """Scores of what may follow each text, kept until it grows; texts may differ in length, as in a CTC beam."""

    gain = 0.0

    @torch.inference_mode()
    def __init__(self, model: TransformerLanguageModel, mapping: Tensor, start: int, rows: int) -> None:
        self._model = model
        self._mapping = mapping
        self._cache = model.decoder.cache()
        self._lengths = torch.ones(rows, dtype=torch.int64, device=mapping.device)  # tokens that were read of each text
        self._spoken = self._read(torch.full((rows,), start, device=mapping.device))

    @torch.inference_mode()
    def score(self, candidates: Tensor) -> Tensor:
        tokens = self._mapping[candidates.to(self._mapping.device)]
        scores = self._spoken.gather(1, tokens.clamp(min=0)).double()
        return scores.masked_fill(tokens == _NOT_KNOWN, float("-inf")).to(candidates.device)

    @torch.inference_mode()
    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        rows, tokens = rows.to(self._mapping.device), tokens.to(self._mapping.device)
        self._lengths, self._spoken = self._lengths[rows], self._spoken[rows]
        self._cache.select(rows)
        grows = tokens >= 0
        # What the model has not learned to read to its end it does not judge.
        too_long = grows & (self._lengths >= self._model.configuration.maximum_length)
        self._spoken[too_long] = 0.0
        growing = (grows & ~too_long).nonzero()[:, 0]
        if len(growing):
            self._cache.step(growing, self._lengths[growing])
            self._spoken[growing] = self._read(self._mapping[tokens[growing]].clamp(min=0))
            self._lengths[growing] += 1

    def _read(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of what follows the next token of each row, int64 (rows,) -> (rows, vocabulary)."""
        logits: Tensor = self._model(tokens[:, None], self._cache, last_only=True)
        return logits[:, -1].log_softmax(dim=-1)
