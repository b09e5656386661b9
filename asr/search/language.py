"""The language of an utterance, as a multilingual Whisper model hears it (Radford et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from asr.exceptions import ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import ModelConfiguration
from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded
from asr.search.options import DecodingOptions
from asr.text.tokenizer import BytePairTokenizer, Tokenizer


@dataclass(frozen=True)
class HeardLanguage:
    """A language code and its probability among the languages of the model."""

    code: str
    probability: float


def heard_languages(settings: ModelConfiguration, tokenizer: Tokenizer) -> dict[str, int]:
    """The languages that a model can tell apart, each with its token.

    None without a language in the decoder's prompt: English-only models of Whisper have the tokens too, untrained.
    """
    if not isinstance(tokenizer, BytePairTokenizer) or settings.decoder is None:
        return {}
    known = tokenizer.languages
    return known if any(f"<|{code}|>" in settings.decoder.prompt for code in known) else {}


def languages(checkpoint: Checkpoint) -> dict[str, int]:
    """The languages that the model can be asked for, each with its token; none unless it is multilingual."""
    settings = checkpoint.model.configuration
    return heard_languages(settings, checkpoint.tokenizer) if settings.language == "multilingual" else {}


@torch.inference_mode()
def detect_languages(
    checkpoint: Checkpoint, encoded: Encoded, among: Collection[str] = (), handicap: float = 0.0
) -> list[HeardLanguage]:
    """What the decoder expects after the start token: the most probable language of each utterance.

    Args:
        checkpoint: a model that can tell languages apart.
        encoded: (batch, positions, width).
        among: the languages that it may be; none: all that the model knows.
        handicap: taken off the score of the language that the model was made for, a natural logarithm.
    """
    known = {
        code: token
        for code, token in heard_languages(checkpoint.model.configuration, checkpoint.tokenizer).items()
        if not among or code in among
    }
    decoder = cast(Decoder, checkpoint.model.decoder)
    start = checkpoint.tokenizer.identifier(decoder.configuration.prompt[0])
    tokens = torch.full((len(encoded.values), 1), start, device=encoded.values.device)
    scores = decoder(tokens, encoded.values, encoded.lengths)[:, 0, list(known.values())]
    codes = list(known)
    own = checkpoint.model.configuration.language
    if own in known:
        scores[:, codes.index(own)] -= handicap
    best, chosen = scores.softmax(dim=-1).max(dim=-1)
    return [HeardLanguage(codes[index], share) for index, share in zip(chosen.tolist(), best.tolist(), strict=True)]


def check(checkpoint: Checkpoint, language: str | None) -> None:
    """Refuse a language that the model does not write.

    Raises:
        ConfigurationError: names the languages that there are.
    """
    own = checkpoint.model.configuration.language
    known = languages(checkpoint) or {own: 0}
    if language not in (None, "auto", *known):
        raise ConfigurationError(f"language '{language}': is not one of the model's; give auto or one of {', '.join(known)}.")


def options_by_language(
    checkpoint: Checkpoint, encoded: Encoded, options: DecodingOptions, language: str | None
) -> list[tuple[list[int], DecodingOptions]]:
    """Rows of a batch that are searched in the same language, with the options for it.

    Args:
        language: a code; ``auto``: what is heard in each row; None: the model's own prompt.
    """
    rows = list(range(len(encoded.values)))
    if language is None or not languages(checkpoint):
        return [(rows, options)]
    codes: Sequence[str] = [language] * len(rows)
    if language == "auto":
        codes = [heard.code for heard in detect_languages(checkpoint, encoded)]
    return [(members, replace(options, prompt=prompt(checkpoint, code))) for code, members in rows_by_code(codes).items()]


def rows_by_code(codes: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each code, in the order in which codes first occur."""
    found: dict[str, list[int]] = {}
    for row, code in enumerate(codes):
        found.setdefault(code, []).append(row)
    return found


def prompt(checkpoint: Checkpoint, language: str) -> tuple[str, ...]:
    """The model's start tokens with another language, also of a model that was made for one.

    Raises:
        ConfigurationError: the model has no token for it.
    """
    known = heard_languages(checkpoint.model.configuration, checkpoint.tokenizer)
    if language not in known:
        there = ", ".join(known) or "none"
        raise ConfigurationError(f"language '{language}': the model has no token for it; it has {there}.")
    names = {f"<|{code}|>" for code in known}
    own = cast(Decoder, checkpoint.model.decoder).configuration.prompt
    return tuple(f"<|{language}|>" if token in names else token for token in own)
