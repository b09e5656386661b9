"""The one entrance to all searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.model.recognizer import Encoded, Recognizer
from asr.search.beam import BeamOptions, beam_search
from asr.search.ctc import ctc_greedy_search
from asr.search.ctc_prefix import CtcPrefixScorer
from asr.search.greedy import greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import Tokenizer


def decode(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    options: DecodingOptions,
    ctc_tokenizer: Tokenizer | None = None,
) -> list[Hypothesis]:
    """Search a batch for its texts in the way that ``options`` names.

    Args:
        model: recogniser.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        options: the search; what is None in them is the model's choice.
        ctc_tokenizer: tokenizer of the CTC head; None: it shares the decoder's.

    Returns:
        The best hypothesis of each utterance, in order.

    Raises:
        ConfigurationError: the model has not what the options ask for.
    """
    options = options.resolved(model)
    if options.decoder == "ctc":
        return ctc_greedy_search(model, ctc_tokenizer or tokenizer, encoded)
    ctc_weight = (options.ctc_weight or 0.0) if options.decoder == "joint" else 0.0
    scorers: list[tuple[float, PrefixScorer]] = []
    if options.decoder == "joint":
        if ctc_tokenizer is not None and ctc_tokenizer.tokens != tokenizer.tokens:
            raise ConfigurationError(
                "the CTC head writes other tokens than the decoder, so that joint search cannot add their scores; "
                "use --decoder rescoring."
            )
        log_probabilities = model.ctc_log_probabilities(encoded)
        scorers.append((ctc_weight, CtcPrefixScorer(log_probabilities, encoded.lengths, tokenizer.blank, tokenizer.stop)))
    if options.language_model is not None:
        scorer = options.language_model.scorer(tokenizer, len(encoded.lengths), encoded.values.device)
        scorers.append((options.language_model_weight or 0.0, scorer))
    if options.beam_size == 1 and not scorers:
        return greedy_search(model, tokenizer, encoded, sample_lengths, options.prompt)
    beam = BeamOptions(
        size=options.beam_size or 1,
        n_best=options.n_best,
        threshold=options.beam_threshold,
        length_bonus=options.length_bonus or 0.0,
        length_normalization=options.length_normalization,
        decoder_weight=1 - ctc_weight,
    )
    found = beam_search(model, tokenizer, encoded, sample_lengths, beam, options.prompt, scorers)
    return [replace(best, alternatives=tuple(others)) for best, *others in found]
