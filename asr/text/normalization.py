"""Normalisation: spelling differences that are no recognition errors are removed from both sides before scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as package_version

from asr.exceptions import ConfigurationError

NAMES = ("none", "basic", "english", "mandarin")


@dataclass(frozen=True)
class Normalizer:
    """A named and versioned map from text to text.

    Attributes:
        name: one of ``NAMES``.
        version: what decides the result beside the name: the libraries and their versions. Rates are comparable only
            where name and version are the same.
        spaces: whether a space is a character of the text; Mandarin is written without, so that there spaces are
            never scored.
    """

    name: str
    version: str
    spaces: bool = True
    function: Callable[[str], str] = field(default=str, repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Normalise one text."""
        return self.function(text)


@cache
def normalizer(name: str) -> Normalizer:
    """The normaliser of that name.

    - ``none``: the text as it is.
    - ``basic``: Whisper's standardisation for any language: remarks in brackets dropped, lower case, punctuation,
      symbols and combining marks to spaces.
    - ``english``: see ``asr.text.english``.
    - ``mandarin``: see ``asr.text.mandarin``.

    Raises:
        ConfigurationError: there is no normaliser of that name.
    """
    # The libraries are imported only for the normaliser that needs them: "none" must cost nothing.
    if name == "none":
        return Normalizer(name, "1")
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        basic = BasicTextNormalizer()
        version = f"whisper-normalizer {package_version('whisper-normalizer')}"
        return Normalizer(name, version, function=lambda text: str(basic(text)).strip())
    if name == "english":
        from asr.text import english

        return Normalizer(name, english.version(), function=english.normalize)
    if name == "mandarin":
        from asr.text import mandarin

        return Normalizer(name, mandarin.version(), spaces=False, function=mandarin.normalize)
    raise ConfigurationError(f"normaliser '{name}': is not known, choose one of {', '.join(NAMES)}.")


def of_language(language: str) -> Normalizer:
    """The normaliser of a model's language, ``basic`` where it has none of its own."""
    return normalizer({"en": "english", "zh": "mandarin"}.get(language, "basic"))
