"""Text as phonemes: Mandarin, with Latin words in it, as Kokoro reads it; both languages as units of sound."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from asr.exceptions import ConfigurationError

# Names of the letters in the phonemes of misaki's English, in which A I O W Y are the diphthongs of day, my, no, now, boy.
LETTERS = {
    "A": "ˈA", "B": "bˈi", "C": "sˈi", "D": "dˈi", "E": "ˈi", "F": "ˈɛf", "G": "ʤˈi", "H": "ˈAʧ", "I": "ˈI",
    "J": "ʤˈA", "K": "kˈA", "L": "ˈɛl", "M": "ˈɛm", "N": "ˈɛn", "O": "ˈO", "P": "pˈi", "Q": "kjˈu", "R": "ˈɑɹ",
    "S": "ˈɛs", "T": "tˈi", "U": "jˈu", "V": "vˈi", "W": "dˈʌbəlju", "X": "ˈɛks", "Y": "wˈI", "Z": "zˈi",
}  # fmt: skip
# Read as words, or not as the dictionary spells them.
_WORDS = {"wifi": "wˈIfˌI", "iphone": "ˈIfˌOn", "oppo": "ˈOpO", "vivo": "vˈivO", "uber": "ˈubəɹ", "ipad": "ˈIpˌæd"}
_MARKS = str.maketrans(
    {"，": ",", "、": ",", "。": ".", "．": ".", "！": "!", "？": "?", "：": ":", "；": ";", "（": "(", "）": ")"}
    | {"《": "“", "》": "”", "「": "“", "」": "”"}
)
_MODIFIERS = "ʰːˑ̩̯̃→↗↓↘"
PAUSE, BETWEEN = ",", "|"
"""Units that are no sound: where punctuation asks for a pause, and where one word ends and another begins."""
_ENDS = {"s": ("ptkfθ", "s", "szʃʒʧʤ", "ᵻz", "z"), "d": ("pkfθsʃʧ", "t", "td", "ᵻd", "d")}
_SILENT_MARKS = r"\s，、。！？：；（）《》「」“”‘’—…·,.!?:;()\"'-"
_MANDARIN = re.compile(f"[\u4e00-\u9fffA-Za-z{_SILENT_MARKS}]*\\Z")
_ENGLISH = re.compile(f"[A-Za-z{_SILENT_MARKS}]*\\Z")
_PARTS = re.compile(r"[\u4e00-\u9fff]+|[A-Za-z]+|[^\u4e00-\u9fffA-Za-z]+")
_SPOKEN = re.compile(r"[\u4e00-\u9fff]+\Z")


def phonemes(text: str) -> str:
    """Phonemes of a text in Han characters, Latin letters and punctuation; numbers must be written out.

    Han characters are cut into words (jieba), read by word (pypinyin) and written in IPA with an arrow for the tone
    (misaki). A Latin word is read as misaki's English dictionary has it; one in capitals or not in there is spelt.

    Raises:
        ConfigurationError: the libraries of the extra ``synthesis`` are not installed.
    """
    jieba, chinese = _libraries()
    read: list[str] = []
    for part in _PARTS.findall(text):
        if _SPOKEN.match(part):
            read.append(" ".join(chinese.word2ipa(word) for word in jieba.lcut(part)).replace(chr(815), ""))
        elif part[0].isascii() and part[0].isalpha():
            read.append(f" {_latin(part)} ")
        else:
            marks = part.translate(_MARKS).strip()
            read.append(f"{marks} " if marks else " ")
    return re.sub(" +(?=[,.!?:;)”])", "", re.sub(" +", " ", "".join(read))).strip()


def _latin(word: str) -> str:
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if not word.isupper():
        found = _default(_english().get(word) or _english().get(word.lower()))
        if found is not None:
            return found
    return " ".join(LETTERS[letter] for letter in word.upper())


def units(text: str, language: str) -> tuple[str, ...] | None:
    """Sounds of a text, each a phoneme with what modifies it: aspiration, and a tone on the vowel that has it.

    Stress is left out. ``PAUSE`` stands where punctuation does, ``BETWEEN`` where words meet.

    Args:
        language: ``zh``, read by ``phonemes``, or ``en``, read by misaki's American dictionaries.

    Returns:
        None where something would be left out: a word that is not in the dictionary, a number in digits, a sign that is
        spoken, a letter of another script.

    Raises:
        ConfigurationError: the libraries of the extra ``synthesis`` are not installed, or the language has no reader.
    """
    if language == "zh":
        read = phonemes(text) if _MANDARIN.match(text) else None
    elif language == "en":
        read = _english_phonemes(text) if _ENGLISH.match(text) else None
    else:
        raise ConfigurationError(f"language '{language}': there is no pronunciation for it; choose zh or en.")
    return None if read is None else _cut(read)


def _cut(read: str) -> tuple[str, ...]:
    found: list[str] = []
    for sign in read:
        if sign in _MODIFIERS and found and found[-1] not in (PAUSE, BETWEEN):
            found[-1] += sign
        elif sign.isspace() or sign in ",.!?:;":
            # A mark says more than the space after it.
            between = PAUSE if not sign.isspace() else BETWEEN
            if found and found[-1] in (PAUSE, BETWEEN):
                found[-1] = PAUSE if PAUSE in (found[-1], between) else BETWEEN
            elif found:
                found.append(between)
        elif sign.isalpha() and sign not in "ˈˌ":
            found.append(sign)
    while found and found[-1] in (PAUSE, BETWEEN):
        found.pop()
    return tuple(found)


def _english_phonemes(text: str) -> str | None:
    read = []
    for word, mark in re.findall(r"([A-Za-z]+(?:'[A-Za-z]+)*)|([,.!?:;])", text.replace("’", "'")):
        sound = mark or _english_word(word)
        if sound is None:
            return None
        read.append(sound)
    return " ".join(read)


def _english_word(word: str) -> str | None:
    """A word of the dictionaries, or the plural, possessive or past of one."""
    word = word.lower()
    if len(word) == 1 and word not in "ai":
        return LETTERS[word.upper()]
    if found := _entry(word) or _entry(word.capitalize()):
        return found
    stems = {"'s": ("",), "ies": ("y",), "es": ("", "e"), "s": ("",), "ied": ("y",), "ed": ("", "e")}
    for ending, replacements in stems.items():
        if not word.endswith(ending) or len(word) < len(ending) + 2:
            continue
        for replacement in replacements:
            stem = word[: -len(ending)] + replacement
            if found := _entry(stem) or _entry(stem.capitalize()):
                voiceless, after_voiceless, like, after_like, otherwise = _ENDS[ending[-1]]
                last = found[-1]
                return found + (after_like if last in like else after_voiceless if last in voiceless else otherwise)
    return None


def _entry(word: str) -> str | None:
    return _default(_english().get(word) or _silver().get(word))


def _default(entry: Any) -> str | None:
    # Some words are read by their part of speech.
    found = entry.get("DEFAULT") if isinstance(entry, dict) else entry
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _libraries() -> tuple[Any, Any]:
    try:
        import jieba
        from misaki.zh import ZHG2P
    except ImportError as error:
        raise ConfigurationError(f"synthesis needs {error.name}; install the extra with pip install 'asr[synthesis]'.") from error
    jieba.setLogLevel("WARNING")
    return jieba, ZHG2P


@lru_cache(maxsize=1)
def _english() -> dict[str, Any]:
    return _dictionary("us_gold.json")


@lru_cache(maxsize=1)
def _silver() -> dict[str, Any]:
    return _dictionary("us_silver.json")


def _dictionary(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(files("misaki").joinpath("data", name).read_text(encoding="utf-8")))
    except ModuleNotFoundError as error:
        raise ConfigurationError("synthesis needs misaki; install the extra with pip install 'asr[synthesis]'.") from error
