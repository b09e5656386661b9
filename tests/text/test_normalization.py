"""The choice of a normaliser by name."""

from __future__ import annotations

import pytest

from asr.exceptions import ConfigurationError
from asr.text.normalization import NAMES, normalizer


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_version(name: str) -> None:
    chosen = normalizer(name)
    assert chosen.name == name
    assert chosen.version


def test_none_changes_nothing() -> None:
    text = "  As it IS, [noise] 1,000 臺 "
    assert normalizer("none")(text) == text


def test_basic_equals_whisper() -> None:
    reference = pytest.importorskip("whisper.normalizers").BasicTextNormalizer()
    for text in ("Ça va? [bruit] (oui) L'été — 3 000 €!", "今天，天氣很好。", "", "A\tB\n c"):
        assert normalizer("basic")(text) == reference(text).strip()


def test_only_mandarin_is_without_spaces() -> None:
    assert [name for name in NAMES if not normalizer(name).spaces] == ["mandarin"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="none, basic, english, mandarin"):
        normalizer("german")
