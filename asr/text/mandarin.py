"""Mandarin text normalisation: one way of writing for what is said in one way.

In this order: NFKC (full-width to half-width), lower case, remarks in brackets dropped, traditional characters to
simplified (OpenCC), numeric notation written out (``50%`` to 百分之50, ``3.5`` to 3点5), punctuation and symbols
dropped, spaces removed but for those between two Latin words, Chinese numerals to digits (二百五 to 250, 二零二三 to
2023). All numerals end as digits, so that a reference in one notation and a hypothesis in the other compare equal.

Numerals are read after punctuation is dropped, so that a recogniser that writes no punctuation loses nothing by it.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version as package_version
from typing import Any

# Han, kana, bopomofo and the ideographic zero and repetition marks: written without spaces, one unit each.
HAN = (
    r"\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)

_REMARK = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>|\{[^{}]*\}|【[^【】]*】|〔[^〔〕]*〕")
_DIGITS = str.maketrans("零〇一二三四五六七八九两幺壹贰叁肆伍陆柒捌玖", "0012345678921123456789")
_NUMERAL = "0-9零〇一二三四五六七八九两幺十百千万亿廿卅壹贰叁肆伍陆柒捌玖拾佰仟"
_UNITS = "百千万亿佰仟"
_RUN = re.compile(f"[{_NUMERAL}]+")
_PLAIN = re.compile("[0-9零〇一二三四五六七八九两幺壹贰叁肆伍陆柒捌玖]+")
_SCALED = re.compile(f"([0-9零〇一二三四五六七八九十百千两廿卅]+)点([0-9零〇一二三四五六七八九]+)([万亿])(?![{_NUMERAL}])")
_FINANCIAL = frozenset("壹贰叁肆伍陆柒捌玖拾佰仟")

_NOTATION = [
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # thousands
    (re.compile(r"(?<=\d)\.(?=\d)"), "点"),
    (re.compile(r"([0-9]+(?:点[0-9]+)?)\s*%"), r"百分之\1"),
    (re.compile(r"([0-9]+(?:点[0-9]+)?)\s*‰"), r"千分之\1"),
    (re.compile(r"(?<![\d/])([0-9]+)[/⁄]([0-9]+)(?![\d/])"), r"\2分之\1"),
    (re.compile(r"(?<![\d:])([0-9]{1,2}):([0-5][0-9])(?![\d:])"), r"\1点\2"),
    (re.compile(r"(?<![\d:])([0-9]+):([0-9]+)(?![\d:])"), r"\1比\2"),
    (re.compile(r"(?<![0-9a-z\-])[-−](?=[0-9])"), "负"),
    (re.compile(f"零下(?=[{_NUMERAL}])"), "负"),
    (re.compile(r"°\s*c\b"), "摄氏度"),
]
_SPACE = re.compile(r"(?<=[^\W\d_])\s+(?=[^\W\d_])")
_HAN_SIDE = re.compile(f"(?<=[{HAN}]) | (?=[{HAN}])")


def version() -> str:
    """The libraries and tables that decide the result, with their versions; the first number is this module's own."""
    return (
        f"1 (opencc-python-reimplemented {package_version('opencc-python-reimplemented')}, "
        f"cn2an {package_version('cn2an')}, Unicode {unicodedata.unidata_version})"
    )


def normalize(text: str) -> str:
    """Normalise one Mandarin text, which may hold Latin words; applying it twice changes nothing more."""
    text = unicodedata.normalize("NFKC", text).lower()
    # Folding case may leave a letter that NFKC would still change.
    text = unicodedata.normalize("NFKC", text)
    text = _REMARK.sub(" ", text)
    text = simplify(text)
    for notation, spoken in _NOTATION:
        text = notation.sub(spoken, text)
    text = re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)
    text = "".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in text)
    # A mark may have moved next to its letter.
    return numerals_to_digits(unicodedata.normalize("NFKC", _join(text)))


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


def numerals_to_digits(text: str) -> str:
    """Chinese numerals, alone or mixed with digits, to digits: 一万两千三 to 12300, 1.5万 to 15000, 零零七 to 007.

    What is no number stays as it is: units without a digit (千万, 百姓) and approximations (二三十).
    """
    text = _SCALED.sub(_scaled, text)
    return _RUN.sub(lambda match: _number(match.group()), text)


def _scaled(match: re.Match[str]) -> str:
    whole, fraction, unit = match.groups()
    try:
        value = Decimal(f"{_number(whole)}.{fraction.translate(_DIGITS)}") * (10000 if unit == "万" else 10**8)
    except (ArithmeticError, ValueError):
        return match.group()
    return format(value.normalize(), "f").replace(".", "点")


def _number(run: str) -> str:
    from cn2an import cn2an

    if len(run) == 1 and run in _FINANCIAL:  # 大陆, 伍先生: words, not amounts
        return run
    if _PLAIN.fullmatch(run):
        return run.translate(_DIGITS)
    number = run.lstrip(_UNITS)
    prefix = run[: len(run) - len(number)]
    if not number:
        return run
    if prefix:  # 万一: a unit cannot begin a number
        return prefix + _number(number)
    number = number.replace("廿", "二十").replace("卅", "三十")
    number = re.sub("亿([1-9一二三四五六七八九两])$", r"亿\1千万", number)  # 七亿二, which cn2an does not know
    try:
        return str(int(cn2an(number, "smart")))
    except (ValueError, KeyError):  # both are ways in which cn2an refuses
        return run
