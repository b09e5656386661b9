"""Mandarin text, with Latin words in it, as the phonemes that Kokoro reads."""

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
        entry = _english().get(word) or _english().get(word.lower())
        # Some words are read by their part of speech.
        found = entry.get("DEFAULT") if isinstance(entry, dict) else entry
        if isinstance(found, str):
            return found
    return " ".join(LETTERS[letter] for letter in word.upper())


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
    return dict(json.loads(files("misaki").joinpath("data", "us_gold.json").read_text(encoding="utf-8")))
