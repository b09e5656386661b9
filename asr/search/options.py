"""How to decode, as one value that is given from the command line down to the search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from asr.exceptions import ConfigurationError
from asr.model.recognizer import Recognizer

DecoderName = Literal["autoregressive", "ctc"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)


@dataclass(frozen=True)
class DecodingOptions:
    """What of the model writes the text, and how it is searched.

    Attributes:
        decoder: None: what suits the model.
        prompt: the decoder's start tokens, instead of the model's own.
    """

    decoder: DecoderName | None = None
    prompt: tuple[str, ...] | None = None

    def resolved(self, model: Recognizer) -> DecodingOptions:
        """The same options with the model's choices in place of None.

        Raises:
            ConfigurationError: the model has not what the options ask for.
        """
        decoder = self.decoder or ("autoregressive" if model.decoder is not None else "ctc")
        if decoder not in DECODERS:
            raise ConfigurationError(f"decoder '{decoder}' is unknown; give one of {', '.join(DECODERS)}.")
        if decoder == "autoregressive" and model.decoder is None:
            raise ConfigurationError("the model has no autoregressive decoder; use --decoder ctc.")
        if decoder == "ctc" and model.ctc is None:
            raise ConfigurationError("the model has no CTC head; use --decoder autoregressive.")
        return replace(self, decoder=decoder)

    def describe(self) -> str:
        """The search in a few words, for tables of results."""
        return f"{self.decoder}, greedy"
