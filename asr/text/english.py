"""English text standardisation as Whisper defines it.

A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, appendix C "Text
Standardization": remarks in brackets and hesitations dropped, contractions written out, British spelling to American,
numbers and currency to digits, symbols and diacritics dropped.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.metadata import version as package_version
from typing import Any

from asr.exceptions import ScoringError

# Rules of the whisper-normalizer package that the reference implementation does not have.
_ADDED = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")


class _Replacers(dict[str, str]):
    """The rules for contractions; iteration leaves out those that cannot apply to the current text.

    Trying 47 expressions on every sentence would be half of the time; most need letters that are not there.
    """

    def __init__(self, rules: dict[str, str]) -> None:
        super().__init__(rules)
        self.current = threading.local()  # the text in hand, one for each thread

    def items(self) -> Any:
        text = self.current.text
        if any(bracket in text for bracket in "[<("):  # dropping a remark may join letters to a word
            return super().items()
        apostrophe = "'" in text  # spaces before it are dropped, so that no rule with one can be judged by its letters
        return [
            (rule, written_out)
            for rule, written_out in super().items()
            if (apostrophe if "'" in rule else rule.replace(r"\b", "") in text)
        ]


def version() -> str:
    """The library that normalises, with its version."""
    return f"whisper-normalizer {package_version('whisper-normalizer')}"


@lru_cache(maxsize=1)
def _standardizer() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    standardizer = EnglishTextNormalizer()
    standardizer.replacers = _Replacers({k: v for k, v in standardizer.replacers.items() if k not in _ADDED})
    return standardizer


def normalize(text: str) -> str:
    """Standardise one English text, equal to ``whisper.normalizers.EnglishTextNormalizer`` but for outer spaces.

    Raises:
        ScoringError: the text holds a number of more digits than Python converts (4,300).
    """
    standardizer = _standardizer()
    standardizer.replacers.current.text = text.lower()
    try:
        return str(standardizer(text)).strip()
    except (ValueError, ArithmeticError, AssertionError) as error:
        raise ScoringError(f"'{text[:40]}…': holds a number too long to be normalised; correct it.") from error
