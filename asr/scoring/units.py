"""What is counted: words, characters, or characters with whole Latin words."""

from __future__ import annotations

import re
from collections.abc import Callable

from asr.exceptions import ScoringError
from asr.text.mandarin import HAN
from asr.text.normalization import Normalizer

UNITS = ("word", "char", "mixed")
RATES = {"word": "WER", "char": "CER", "mixed": "MER"}

# One Han character, one digit, or a run of anything else that is written together.
_MIXED = re.compile(rf"[{HAN}]|\d|[^\s\d{HAN}]+")


def tokenizer(unit: str, normalizer: Normalizer) -> Callable[[str], list[str]]:
    """The function that splits a normalised text into units.

    - ``word``: what stands between white space (any Unicode white space).
    - ``char``: characters. As in jiwer, a space between words is a character too (white space in a row counts once);
      under a normaliser for a script without spaces it is not.
    - ``mixed``: for mixed Mandarin and English: each Han character, each digit, and each Latin word is one unit.

    Raises:
        ScoringError: the unit is none of ``UNITS``.
    """
    if unit == "word":
        return str.split
    if unit == "char":
        separator = " " if normalizer.spaces else ""
        return lambda text: list(separator.join(text.split()))
    if unit == "mixed":
        return _MIXED.findall
    raise ScoringError(f"unit '{unit}': is not known, choose one of {', '.join(UNITS)}.")
