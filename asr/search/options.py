"""How to decode, as one value that is given from the command line down to the search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from asr.exceptions import ConfigurationError
from asr.model.recognizer import Recognizer

DecoderName = Literal["autoregressive", "joint", "ctc"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
# What the names need of a model.
_NEED_DECODER = ("autoregressive", "joint")
_NEED_CTC = ("joint", "ctc")


@dataclass(frozen=True)
class DecodingOptions:
    """What of the model writes the text, and how it is searched.

    - ``autoregressive``: the decoder, greedy or in a beam.
    - ``joint``: one beam search over the decoder's score and CTC's prefix score (Watanabe et al. 2017).
    - ``ctc``: the best path of the CTC head.

    Attributes:
        decoder: None: what suits the model.
        prompt: the decoder's start tokens, instead of the model's own.
        beam_size: texts that are followed at a time; 1 is greedy search. None: 1, or 10 for ``joint``.
        n_best: hypotheses of an utterance; all but the best are its ``alternatives``.
        beam_threshold: texts whose score is so much below the best of their length are dropped.
        ctc_weight: share of CTC in a joint score.
        length_bonus: added to a text's score for each token.
        length_normalization: texts are compared by score / (tokens + 1) ** this.
    """

    decoder: DecoderName | None = None
    prompt: tuple[str, ...] | None = None
    beam_size: int | None = None
    n_best: int = 1
    beam_threshold: float = 20.0
    ctc_weight: float = 0.3
    length_bonus: float = 0.0
    length_normalization: float = 0.0

    def resolved(self, model: Recognizer) -> DecodingOptions:
        """The same options with the model's choices in place of None.

        Raises:
            ConfigurationError: a value is not possible, or the model has not what it asks for.
        """
        decoder = self.decoder or ("autoregressive" if model.decoder is not None else "ctc")
        if decoder not in DECODERS:
            raise ConfigurationError(f"decoder '{decoder}' is unknown; give one of {', '.join(DECODERS)}.")
        if decoder in _NEED_DECODER and model.decoder is None:
            raise ConfigurationError(f"the model has no autoregressive decoder, which {decoder} needs; use --decoder ctc.")
        if decoder in _NEED_CTC and model.ctc is None:
            raise ConfigurationError(f"the model has no CTC head, which {decoder} needs; use --decoder autoregressive.")
        beam_size = self.beam_size or (10 if decoder == "joint" else 1)
        if beam_size < 1 or self.n_best < 1:
            raise ConfigurationError(f"beam size {beam_size} with {self.n_best} best is not possible; give 1 or more.")
        if not 0 <= self.ctc_weight <= 1:
            raise ConfigurationError(f"CTC weight {self.ctc_weight} is not a share; give a number from 0 to 1.")
        return replace(self, decoder=decoder, beam_size=max(beam_size, self.n_best))

    def describe(self) -> str:
        """The search in a few words, for tables of results."""
        words = [str(self.decoder), "greedy" if self.beam_size == 1 else f"beam {self.beam_size}"]
        if self.decoder == "joint":
            words.append(f"CTC {self.ctc_weight:g}")
        if self.length_bonus and self.beam_size != 1:
            words.append(f"length bonus {self.length_bonus:g}")
        return ", ".join(words)
