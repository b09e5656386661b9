"""How to decode, as one value that is given from the command line down to the search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from asr.exceptions import ConfigurationError
from asr.model.configuration import DecodingConfiguration, LengthWay
from asr.model.decoder import Decoder
from asr.model.recognizer import Recognizer

if TYPE_CHECKING:
    from asr.model.draft import Guesser
    from asr.search.language_model import LanguageModel
    from asr.search.lexicon import Lexicon
    from asr.search.phrases import Phrases

DecoderName = Literal["autoregressive", "joint", "rescoring", "nonautoregressive", "ctc", "ctc-beam"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
# What the names need of a model.
_NEED_DECODER = ("autoregressive", "joint", "rescoring")
_NEED_CTC = ("joint", "rescoring", "ctc", "ctc-beam")
_GREEDY = ("autoregressive", "ctc")
_DEFAULTS = DecodingConfiguration(ctc_weight=0.3, length_bonus=0.0, length_normalization=0.0, language_model_weight=0.3)


@dataclass(frozen=True)
class DecodingOptions:
    """What of the model writes the text, and how it is searched.

    - ``autoregressive``: the decoder, greedy or in a beam.
    - ``joint``: one beam search over the decoder's score and CTC's prefix score (Watanabe et al. 2017).
    - ``rescoring``: texts of CTC's beam, or of the decoder's where CTC writes other tokens, which decoder, CTC and
      language model then score as a whole.
    - ``nonautoregressive``: the non-autoregressive decoder, all tokens at once (``asr.search.mask_predict``).
    - ``ctc``: the best path of the CTC head.
    - ``ctc-beam``: prefix beam search over the CTC head (Hannun et al. 2014).

    Where CTC writes other tokens than the decoder, it scores in ``joint`` and ``rescoring`` what it can write of a text
    (``asr.search.spelling``).

    None is the model's own choice, where its configuration has one for the decoder in question.

    Attributes:
        decoder: who writes.
        prompt: the decoder's start tokens, instead of the model's own.
        beam_size: texts that are followed at a time; 1 is greedy search. Without a choice 1
            for ``autoregressive`` and 10 for the others.
        n_best: hypotheses of an utterance; all but the best are its ``alternatives``.
        beam_threshold: texts whose score is so much below the best of their length are dropped.
        ctc_weight: share of CTC in a joint score; 0.3 suits a head that is about as good as the decoder.
        length_bonus: added to a text's score for each token.
        length_normalization: texts of ``autoregressive`` and ``joint`` are compared by score / (tokens + 1) ** this. With 0 a
            beam over a decoder alone that was trained with smoothed labels finds a text of one letter the best, since the
            stop token has a little everywhere; with 1 Whisper's counts on through a long vowel.
        stop_threshold: a text of ``autoregressive`` and ``joint`` may end where the stop token's log-probability under the
            decoder is at least this times that of the likeliest other token; without a choice, anywhere.
        minimum_length: a text of the decoder has so many tokens for each of the encoder's positions at least.
        iterations: passes of the non-autoregressive decoder.
        length_by: what says how long its text is: predictor, row, ctc or alignment; None: the first
            that it was trained for.
        length_candidates: with predictor, so many of the most probable lengths are decoded and the best is kept.
        ctc_threshold: with ctc, tokens that the CTC head gives at least this probability are not asked for; with alignment,
            nothing is put in between two that are surer.
        language_model: its log-probability is added to the score.
        language_model_weight: what it is multiplied by; 0 leaves out the model's own language model as well.
        latin_floor: least that a language model says of a token of Latin letters, in nats; for languages that are not written
            in them, whose texts have each such word seldom.
        phrases: words and names that are expected.
        lexicon: words that alone may be said, for ``ctc-beam``; it has its own language model.
        speculative: greedy search reads what the model's draft guesses, if it has one; the text is the same.
        guesser: the model's draft, which ``resolved`` reads.
    """

    decoder: DecoderName | None = None
    prompt: tuple[str, ...] | None = None
    beam_size: int | None = None
    n_best: int = 1
    beam_threshold: float = 8.0
    ctc_weight: float | None = None
    length_bonus: float | None = None
    length_normalization: float | None = None
    stop_threshold: float | None = None
    minimum_length: float = 0.0
    iterations: int = 4
    length_by: LengthWay | None = None
    length_candidates: int = 1
    ctc_threshold: float = 0.99
    language_model: LanguageModel | None = None
    language_model_weight: float | None = None
    latin_floor: float | None = None
    phrases: Phrases | None = None
    lexicon: Lexicon | None = None
    speculative: bool = True
    guesser: Guesser | None = None

    def resolved(self, model: Recognizer, folder: Path | None = None) -> DecodingOptions:
        """The same options with the model's or general choices in place of None.

        Args:
            model: recogniser.
            folder: its checkpoint, where its own language model is read from.

        Raises:
            ConfigurationError: a value is not possible, or the model has not what it asks for.
            CheckpointError: the model's language model or draft cannot be read.
        """
        own = model.configuration.decoding
        decoder = self.decoder or own.decoder or _first(model)
        if decoder not in DECODERS:
            raise ConfigurationError(f"decoder '{decoder}' is unknown; give one of {', '.join(DECODERS)}.")
        if decoder == "nonautoregressive":
            return self._nonautoregressive(model)
        if decoder in _NEED_DECODER and model.decoder is None:
            raise ConfigurationError(
                f"the model has no autoregressive decoder, which {decoder} needs; use --decoder {_first(model)}."
            )
        if decoder in _NEED_CTC and model.ctc is None:
            raise ConfigurationError(f"the model has no CTC head, which {decoder} needs; use --decoder {_first(model)}.")
        # The model's choices belong to its choice of decoder, but how much its CTC head is worth to all that ask it.
        chosen = decoder == own.decoder or (self.decoder is None and own.decoder is None)
        own = own if chosen else DecodingConfiguration(ctc_weight=own.ctc_weight)

        def choose(name: str) -> float:
            values = (getattr(each, name) for each in (self, own, _DEFAULTS))
            return next(float(value) for value in values if value is not None)

        beam_size = self.beam_size or own.beam_size or (1 if decoder in _GREEDY else 10)
        if beam_size < 1 or self.n_best < 1:
            raise ConfigurationError(f"beam size {beam_size} with {self.n_best} best is not possible; give 1 or more.")
        ctc_weight = choose("ctc_weight")
        if not 0 <= ctc_weight <= 1:
            raise ConfigurationError(f"CTC weight {ctc_weight} is not a share; give a number from 0 to 1.")
        if not 0 <= self.minimum_length < float("inf"):
            raise ConfigurationError(f"minimum length {self.minimum_length} is not possible; give tokens a position, as 0.05.")
        normalization = choose("length_normalization")
        if normalization < 0:
            raise ConfigurationError(f"length normalization {normalization} is below 0; give 0 or more.")
        stop_threshold = self.stop_threshold if self.stop_threshold is not None else own.stop_threshold
        if stop_threshold is not None and stop_threshold < 0:
            raise ConfigurationError(f"stop threshold {stop_threshold} is below 0; give 0 or more.")
        latin_floor = self.latin_floor if self.latin_floor is not None else own.latin_floor
        if latin_floor is not None and latin_floor > 0:
            raise ConfigurationError(f"Latin floor {latin_floor} is no log-probability; give 0 or less.")
        weight = choose("language_model_weight")
        if weight < 0:
            raise ConfigurationError(f"language model weight {weight} is below 0; give 0 or more.")
        if decoder == "ctc" and ((self.language_model is not None and weight > 0) or self.phrases is not None):
            raise ConfigurationError("the best path of CTC asks no language model and no phrases; use --decoder ctc-beam.")
        language_model = self.language_model if weight > 0 else None
        if language_model is None and weight > 0 and own.language_model is not None and folder is not None:
            from asr.search.language_model import load_mixture

            language_model = load_mixture(own.language_model, folder)
        if self.lexicon is not None and (decoder != "ctc-beam" or self.phrases is not None):
            raise ConfigurationError("a lexicon is for --decoder ctc-beam, without phrases; leave one of them out.")
        beam_size = 1 if decoder == "ctc" else max(beam_size, self.n_best)
        guesser = self.guesser if self.speculative else None
        greedy = decoder == "autoregressive" and beam_size == 1 and language_model is None and self.phrases is None
        if self.speculative and guesser is None and greedy and model.configuration.draft is not None and folder is not None:
            from asr.model.draft import beside

            guesser = beside(cast(Decoder, model.decoder), folder / model.configuration.draft)
        return replace(
            self,
            decoder=decoder,
            beam_size=beam_size,
            guesser=guesser,
            ctc_weight=ctc_weight,
            length_bonus=choose("length_bonus"),
            length_normalization=normalization,
            stop_threshold=stop_threshold,
            language_model=language_model,
            language_model_weight=weight,
            latin_floor=latin_floor,
        )

    def _nonautoregressive(self, model: Recognizer) -> DecodingOptions:
        if model.nonautoregressive is None:
            raise ConfigurationError(f"the model has no non-autoregressive decoder; use --decoder {_first(model)}.")
        ways = model.nonautoregressive.configuration.lengths
        length_by = self.length_by or ways[0]
        if length_by not in ways:
            raise ConfigurationError(
                f"the non-autoregressive decoder was not trained to find its length by {length_by}; "
                f"use --length-by {' or '.join(ways)}."
            )
        if self.iterations < 1 or self.length_candidates < 1:
            raise ConfigurationError(
                f"{self.iterations} iterations with {self.length_candidates} lengths are not possible; give 1 or more."
            )
        return replace(self, decoder="nonautoregressive", length_by=length_by)

    def describe(self) -> str:
        """The search in a few words, for tables of results; of resolved options."""
        if self.decoder == "nonautoregressive":
            several = f", best of {self.length_candidates} lengths" if self.length_candidates > 1 else ""
            return f"nonautoregressive, length by {self.length_by}{several}, {self.iterations} iterations"
        words = [str(self.decoder), "greedy" if self.beam_size == 1 else f"beam {self.beam_size}"]
        if self.decoder in ("joint", "rescoring"):
            words.append(f"CTC {self.ctc_weight:g}")
        if self.language_model is not None:
            words.append(f"language model {self.language_model_weight:g}")
            if self.latin_floor is not None:
                words.append(f"Latin letters at least {self.latin_floor:g}")
        if self.lexicon is not None:
            words.append(f"{len(self.lexicon.words)} words, language model {self.lexicon.weight:g}")
        if self.phrases is not None:
            words.append(f"{len(self.phrases.phrases)} phrases {self.phrases.bonus:g}")
        if self.length_bonus and (self.beam_size != 1 or self.language_model is not None):
            words.append(f"length bonus {self.length_bonus:g}")
        if self.stop_threshold is not None and self.decoder in ("autoregressive", "joint") and self.beam_size != 1:
            words.append(f"stop threshold {self.stop_threshold:g}")
        if self.minimum_length and self.decoder in _NEED_DECODER:
            words.append(f"minimum length {self.minimum_length:g}")
        return ", ".join(words)


def _first(model: Recognizer) -> DecoderName:
    """What writes where nothing is asked for."""
    if model.decoder is not None:
        return "autoregressive"
    return "nonautoregressive" if model.nonautoregressive is not None else "ctc"
