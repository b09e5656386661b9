"""The one entrance to all searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor

from asr.model.recognizer import Encoded, Recognizer
from asr.search.beam import BeamOptions, beam_search
from asr.search.ctc import ctc_greedy_search
from asr.search.ctc_beam import ctc_beam_search
from asr.search.ctc_prefix import CtcPrefixScorer
from asr.search.greedy import greedy_search
from asr.search.hearing import Hearing
from asr.search.hypothesis import Hypothesis
from asr.search.language_model import FlooredLanguageModel, LanguageModel
from asr.search.mask_predict import mask_predict_search
from asr.search.options import DecodingOptions
from asr.search.rescoring import decoder_scores, rescore
from asr.search.scorers import PrefixScorer
from asr.search.spelling import Spelling
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
    ctc_tokenizer = ctc_tokenizer or tokenizer
    if options.decoder == "ctc":
        return ctc_greedy_search(model, ctc_tokenizer, encoded)
    if options.decoder == "nonautoregressive":
        return mask_predict_search(
            model,
            tokenizer,
            encoded,
            sample_lengths,
            options.iterations,
            options.length_by,
            options.length_candidates,
            options.ctc_threshold,
        )
    by_ctc = model.ctc_log_probabilities(encoded) if model.ctc is not None else None
    size, n_best, fused = options.beam_size or 1, options.n_best, _fused(options)
    if options.lexicon is not None:
        return _joined(options.lexicon.search(cast(Tensor, by_ctc), encoded.lengths, ctc_tokenizer, size, n_best))
    if options.decoder == "ctc-beam":
        scorers = _scorers(fused, ctc_tokenizer, encoded)
        bonus = options.length_bonus or 0.0
        return _joined(ctc_beam_search(cast(Tensor, by_ctc), encoded.lengths, ctc_tokenizer, size, n_best, scorers, bonus))

    hearings = None
    if by_ctc is not None:
        best_paths = ctc_greedy_search(model, ctc_tokenizer, encoded)
        hearings = [Hearing(best, tokenizer, ctc_tokenizer) for best in best_paths]
    heard = [hearing.repeats for hearing in hearings] if hearings else None
    prompt, ctc_weight = options.prompt, options.ctc_weight or 0.0
    spelling = Spelling(tokenizer, ctc_tokenizer)
    if options.decoder == "rescoring":
        assert by_ctc is not None
        scorers = _scorers(fused, tokenizer, encoded)
        if spelling.shared:
            found = ctc_beam_search(by_ctc, encoded.lengths, tokenizer, size, size, scorers)
        else:
            beam = BeamOptions(size, n_best=size, threshold=options.beam_threshold, minimum_length=options.minimum_length)
            found = beam_search(model, tokenizer, encoded, sample_lengths, beam, prompt, scorers, heard)
        if spelling.shared or scorers:
            found = decoder_scores(model, tokenizer, encoded, found, prompt)
        found = rescore(
            found,
            by_ctc,
            encoded.lengths,
            tokenizer,
            ctc_tokenizer.blank,
            spelling,
            ctc_weight=ctc_weight,
            length_bonus=options.length_bonus or 0.0,
            fused=fused,
        )
    else:
        scorers = _scorers(fused, tokenizer, encoded)
        if options.decoder == "joint":
            assert by_ctc is not None
            blank, stop, lookahead = ctc_tokenizer.blank, tokenizer.stop, not spelling.shared
            scorer = CtcPrefixScorer(by_ctc, encoded.lengths, blank, stop, spelling, lookahead)
            scorers.append((ctc_weight, scorer))
        if size == 1 and not scorers:
            minimum = options.minimum_length
            guesser = options.guesser
            texts = greedy_search(model, tokenizer, encoded, sample_lengths, prompt, heard, minimum, guesser)
            found = [[each] for each in texts]
        else:
            beam = BeamOptions(
                size,
                n_best=n_best,
                threshold=options.beam_threshold,
                length_bonus=options.length_bonus or 0.0,
                length_normalization=options.length_normalization or 0.0,
                stop_threshold=options.stop_threshold,
                decoder_weight=1 - ctc_weight if options.decoder == "joint" else 1.0,
                minimum_length=options.minimum_length,
            )
            found = beam_search(model, tokenizer, encoded, sample_lengths, beam, prompt, scorers, heard)
    hypotheses = _joined([several[:n_best] for several in found])
    settings = model.decoder.configuration if model.decoder is not None else None
    if hearings and settings is not None and settings.no_speech_threshold is None:
        # A decoder that stops at once has not heard what CTC is sure of; one with a threshold was asked, and knows it better.
        for number, (hypothesis, hearing) in enumerate(zip(hypotheses, hearings, strict=True)):
            if not hypothesis.text and hearing.has_speech():
                hypotheses[number] = hearing.best
    return hypotheses


def _fused(options: DecodingOptions) -> list[tuple[float, LanguageModel]]:
    """What is asked beside the model, with its weight."""
    fused: list[tuple[float, LanguageModel]] = []
    if options.language_model is not None:
        model, floor = options.language_model, options.latin_floor
        fused.append((options.language_model_weight or 0.0, model if floor is None else FlooredLanguageModel(model, floor)))
    if options.phrases is not None:
        fused.append((1.0, options.phrases))
    return fused


def _scorers(
    fused: Sequence[tuple[float, LanguageModel]], tokenizer: Tokenizer, encoded: Encoded
) -> list[tuple[float, PrefixScorer]]:
    rows, device = len(encoded.lengths), encoded.values.device
    return [(weight, each.scorer(tokenizer, rows, device)) for weight, each in fused]


def _joined(found: Sequence[Sequence[Hypothesis]]) -> list[Hypothesis]:
    """The best of each utterance with the others as its alternatives; nothing where nothing was found."""
    nothing = Hypothesis("", (), (), float("-inf"), "length")
    return [replace(several[0], alternatives=tuple(several[1:])) if several else nothing for several in found]
