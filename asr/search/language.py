"""The language of an utterance, as a multilingual Whisper model hears it (Radford et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from asr.exceptions import ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded
from asr.search.options import DecodingOptions
from asr.text.tokenizer import BytePairTokenizer


@dataclass(frozen=True)
class HeardLanguage:
    """A language code and its probability among the languages of the model."""

    code: str
    probability: float


def languages(checkpoint: Checkpoint) -> dict[str, int]:
    """The languages that the model can be asked for, each with its token; none unless it is multilingual."""
    tokenizer = checkpoint.tokenizer
    if checkpoint.model.configuration.language != "multilingual" or not isinstance(tokenizer, BytePairTokenizer):
        return {}
    return tokenizer.languages


@torch.inference_mode()
def detect_languages(checkpoint: Checkpoint, encoded: Encoded) -> list[HeardLanguage]:
    """What the decoder expects after the start token: the most probable language of each utterance.

    Args:
        checkpoint: a multilingual model.
        encoded: (batch, positions, width).
    """
    known = languages(checkpoint)
    decoder = cast(Decoder, checkpoint.model.decoder)
    start = checkpoint.tokenizer.identifier(decoder.configuration.prompt[0])
    tokens = torch.full((len(encoded.values), 1), start, device=encoded.values.device)
    scores = decoder(tokens, encoded.values, encoded.lengths)[:, 0, list(known.values())].softmax(dim=-1)
    best, chosen = scores.max(dim=-1)
    codes = list(known)
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
    groups = {code: [row for row in rows if codes[row] == code] for code in dict.fromkeys(codes)}
    return [(members, replace(options, prompt=prompt(checkpoint, code))) for code, members in groups.items()]


def prompt(checkpoint: Checkpoint, language: str) -> tuple[str, ...]:
    """The model's start tokens with another language."""
    names = {f"<|{code}|>" for code in languages(checkpoint)}
    own = cast(Decoder, checkpoint.model.decoder).configuration.prompt
    return tuple(f"<|{language}|>" if token in names else token for token in own)
