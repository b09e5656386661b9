"""Mandarin text normalisation: one way of writing for what is said in one way.

In this order: NFKC (full-width to half-width), lower case, remarks in brackets dropped, traditional characters to
simplified (OpenCC), numbers in digits written as they are read (120 to 一百二十, 2023年 to 二零二三年, 50% to
百分之五十, 3.5 to 三点五), variants of numerals to one (两 and 2 to 二, 幺 to 一, 〇 to 零), punctuation and symbols
dropped, spaces removed but for those between two Latin words.

Digits become Chinese numerals and not the reverse, so that a corpus that writes numbers out, as AISHELL does, keeps
its published number of characters, and a wrong character of 一千亿 is one error and not nine.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib.metadata import version as package_version
from typing import Any

# Han, kana, bopomofo and the ideographic zero and repetition marks: written without spaces, one unit each.
HAN = (
    r"\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)

_HAN = re.compile(f"[{HAN}]")
_REMARK = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>|\{[^{}]*\}|【[^【】]*】|〔[^〔〕]*〕")
_READ = str.maketrans("0123456789", "零一二三四五六七八九")
_VARIANTS = str.maketrans("〇两幺", "零二一")
_FINANCIAL = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟", "一二三四五六七八九十百千")
# Alone they are mostly words or names (大陆, 伍先生): with a unit they are an amount.
_AMOUNT = re.compile("[壹贰叁肆伍陆柒捌玖拾佰仟万亿零]{2,}")
_AMOUNT_UNITS = frozenset("拾佰仟万亿")
_NUMBER = re.compile(r"(?a:\d+)")
# Digits that are read one by one: years, classes and generations; the rest by their form, in _read.
_ONE_BY_ONE = re.compile(r"(?<![0-9点])(?:(?:1[0-9]|20)[0-9]{2}(?=[年级届])|[0-9][05](?=后))")
_DATE = re.compile(r"(?<![0-9])([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})(?![0-9])")
_LONGEST = 16  # digits of the largest number that has a reading in 亿

_NOTATION = [
    (_DATE, r"\1年\3月\4日"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # thousands
    (re.compile(r"(?<=\d)\.(?=\d)"), "点"),
    (re.compile(r"(?<![0-9])([0-9]+(?:点[0-9]+)?)\s*%"), r"百分之\1"),
    (re.compile(r"(?<![0-9])([0-9]+(?:点[0-9]+)?)\s*‰"), r"千分之\1"),
    (re.compile(r"(?<![\d/])([0-9]+)[/⁄]([0-9]+)(?![\d/])"), r"\2分之\1"),
    (re.compile(r"(?<![\d:])([0-9]+):([0-9]+)(?![\d:])"), r"\1比\2"),
    (re.compile(r"(?<![0-9a-z\-])[-−](?=[0-9])"), "负"),
    (re.compile(r"°\s*c(?![a-z])"), "摄氏度"),
]
_TIME = re.compile(r"(?<![\d:])([0-9]{1,2}):([0-5][0-9])(?![\d:])")
_SPACE = re.compile(r"(?<=[^\W\d_])\s+(?=[^\W\d_])")
_HAN_SIDE = re.compile(f"(?<=[{HAN}]) | (?=[{HAN}])")


def version() -> str:
    """The libraries and tables that decide the result, with their versions; the first number is this module's own."""
    return (
        f"1 (opencc-python-reimplemented {package_version('opencc-python-reimplemented')}, "
        f"cn2an {package_version('cn2an')}, Unicode {unicodedata.unidata_version})"
    )


def is_han(text: str) -> bool:
    """Whether there is a character in it that is written without spaces."""
    return _HAN.search(text) is not None


def normalize(text: str) -> str:
    """Normalise one Mandarin text, which may hold Latin words; applying it twice changes nothing more."""
    text = unicodedata.normalize("NFKC", text).lower()
    # Folding case may leave a letter that NFKC would still change.
    text = unicodedata.normalize("NFKC", text)
    text = _REMARK.sub(" ", text)
    text = simplify(text)
    text = digits_to_numerals(text)
    text = re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)
    text = "".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in text)
    # A mark may have moved next to its letter.
    text = unicodedata.normalize("NFKC", _join(text)).translate(_VARIANTS)
    return _AMOUNT.sub(_plain_amount, text)


def _plain_amount(match: re.Match[str]) -> str:
    amount = match.group()
    return amount if _AMOUNT_UNITS.isdisjoint(amount) else amount.translate(_FINANCIAL)


def _join(text: str) -> str:
    """Drop all spaces but one between two Latin (or other alphabetic) words."""
    text = _SPACE.sub("\0", text.strip())
    text = re.sub(r"\s+", "", text).replace("\0", " ")
    return _HAN_SIDE.sub("", text)


@lru_cache(maxsize=1)
def _opencc() -> Any:
    import opencc

    return opencc.OpenCC("t2s")


def simplify(text: str) -> str:
    """Traditional characters to simplified, by OpenCC's table of phrases and characters."""
    return str(_opencc().convert(text))


def digits_to_numerals(text: str) -> str:
    """Numbers in digits as they are read.

    A number is read as a quantity (120 is 一百二十), but digit by digit where it is a year (2023年), a generation
    (90后), begins with 0, stands behind a decimal point, or has seven or more digits that are no round
    quantity (telephone numbers). Where both readings are usual (110), the text does not say which was spoken.
    """
    text = _TIME.sub(lambda match: f"{_read(match[1])}点{_read(match[2])}", text)
    for notation, spoken in _NOTATION:
        text = notation.sub(spoken, text)
    text = _ONE_BY_ONE.sub(lambda match: match.group().translate(_READ), text)
    text = re.sub("(?<=[0-9])点[0-9]+", lambda match: match.group().translate(_READ), text)
    return _NUMBER.sub(lambda match: _read(match.group()), text)


def _read(digits: str) -> str:
    """One number as it is read."""
    from cn2an import an2cn

    telephone = len(digits) >= 7 and len(digits.rstrip("0")) >= 6
    if telephone or len(digits) > _LONGEST or (digits[0] == "0" and len(digits) > 1):
        return digits.translate(_READ)
    return str(an2cn(digits, "low"))
