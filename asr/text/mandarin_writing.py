"""How Mandarin is written out: numbers as Chinese numerals or digits, simplified or traditional characters.

The normaliser (``asr.text.mandarin``) makes texts comparable; this makes them as a reader wants them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

from asr.text.mandarin import digits_to_numerals, simplify

Numbers = Literal["chinese", "digits"]
Script = Literal["simplified", "traditional"]

_VALUES = str.maketrans("零〇一二三四五六七八九幺两", "0012345678912")
_DIGIT = "零〇一二三四五六七八九幺"
_NUMERAL = "零〇一二三四五六七八九十百千万亿两幺"
_QUANTITY = f"[{_NUMERAL}]+"
# A lone numeral is a digit before these; elsewhere it is mostly a word (一起, 三个人), which stays as it is.
_UNITS = "年月日号时分秒点度岁元块角级亿万米吨斤克升%℃"

_LONG = 1_000_000

_YEAR = re.compile("(?:[一二][零〇一二三四五六七八九]{3})(?=年)")
_PERCENT = re.compile(f"百分之({_QUANTITY})(?:点([{_DIGIT}]+))?")
_FRACTION = re.compile(f"({_QUANTITY})分之({_QUANTITY})")
_DECIMAL = re.compile(f"({_QUANTITY})点([{_DIGIT}]+)(?![{_NUMERAL}分])")
_RUN = re.compile(_QUANTITY)
_IDIOMS = re.compile(
    f"(?<![{_NUMERAL}])(?:十分(?!钟|之)|万一|千万(?=别|不|要|小心|记)|百姓|百分百|千家万户|千千万万|成千上万|万万|亿万|一五一十|十全十美|三三两两"
    "|七上八下|乱七八糟|一万一千个不|九死一生|四面八方|五花八门|百花|百年大计|千方百计|一干二净|十有八九|八九不离十|五湖四海|二百五)"
)


def write_numbers(text: str, numbers: Numbers) -> str:
    """Numbers as Chinese numerals (as AISHELL writes them), or in digits.

    - ``chinese``: digits as they are read: 25度 is 二十五度, 2015年 is 二零一五年.
    - ``digits``: numerals of ten and more, years, dates, amounts, percentages, decimals and fractions in digits:
      二零一五年 is 2015年, 百分之八 is 8%, 三点一四 is 3.14, 三十五亿 is 35亿, 幺三八零零 is 13800. A single numeral stays
      where it is no amount (一起, 三个人), as do numerals that are no number (七八十) and set phrases (千方百计).
    """
    return digits_to_numerals(text) if numbers == "chinese" else _outside_phrases(text)


def write_script(text: str, script: Script) -> str:
    """Simplified characters, or traditional ones, by OpenCC's tables of phrases and characters."""
    return simplify(text) if script == "simplified" else str(_to_traditional().convert(text))


@lru_cache(maxsize=1)
def _to_traditional() -> Any:
    import opencc

    return opencc.OpenCC("s2t")


def _outside_phrases(text: str) -> str:
    """Digits everywhere but in set phrases."""
    parts: list[str] = []
    position = 0
    for phrase in _IDIOMS.finditer(text):
        parts += [numerals_to_digits(text[position : phrase.start()]), phrase.group()]
        position = phrase.end()
    return "".join([*parts, numerals_to_digits(text[position:])])


def numerals_to_digits(text: str) -> str:
    """Chinese numerals in digits, wherever they are a number; see ``write_numbers``."""
    text = _YEAR.sub(lambda match: match.group().translate(_VALUES), text)
    text = _PERCENT.sub(_percent, text)
    text = _DECIMAL.sub(_decimal, text)
    text = _FRACTION.sub(_fraction, text)
    return _RUN.sub(lambda match: _amount(match.group(), text[match.end() : match.end() + 1]), text)


def value(numeral: str) -> int | None:
    """The number that a numeral says, or None if it is not a well-formed one.

    七八十 (seventy or eighty) and 三千五 (three thousand five hundred) are not.
    """
    from cn2an import an2cn, cn2an

    plain = numeral.replace("两", "二").replace("〇", "零").replace("幺", "一")
    # Read without its one, as it is said: 十二.
    written = re.sub("(?<![一二三四五六七八九百])十", "一十", plain)
    try:
        number = int(cn2an(written, "strict"))
        again = str(an2cn(number, "low"))
    except (ValueError, OverflowError):
        return None
    return number if again in (plain, written) or re.sub("(?<![一二三四五六七八九百])十", "一十", again) == written else None


def _is_digits(run: str) -> bool:
    return not set(run) & set("十百千万亿两")


def _amount(run: str, following: str) -> str:
    if _is_digits(run):
        # Telephone numbers, codes, rooms; two numerals beside each other are mostly "one or two".
        if len(run) >= 3 or "幺" in run or (len(run) == 1 and following and following in _UNITS and run != "零"):
            return run.translate(_VALUES)
        return run
    if len(run) == 1:
        return "10" if run == "十" and following and following in _UNITS else run
    if not set(run) & set("一二三四五六七八九两"):
        return run
    # 三十五亿, 五万: the mantissa alone, as it is printed.
    if run[-1] in "万亿" and (number := value(run[:-1])) is not None and number < 10_000:
        return f"{number}{run[-1]}"
    number = value(run)
    if number is None:
        return run
    # So long a number in digits would be a telephone number to the eye, and to the normaliser.
    if number >= _LONG:
        return f"{number // 10_000}万{number % 10_000}" if number < 10**8 and number % 10_000 >= 1000 else run
    return str(number)


def _percent(match: re.Match[str]) -> str:
    whole = _whole(match[1])
    if whole is None:
        return match.group()
    return f"{whole}.{match[2].translate(_VALUES)}%" if match[2] else f"{whole}%"


def _decimal(match: re.Match[str]) -> str:
    whole = _whole(match[1])
    return match.group() if whole is None else f"{whole}.{match[2].translate(_VALUES)}"


def _fraction(match: re.Match[str]) -> str:
    below, above = _whole(match[1]), _whole(match[2])
    return match.group() if below is None or above is None else f"{above}/{below}"


def _whole(run: str) -> str | None:
    if _is_digits(run):
        return run.translate(_VALUES)
    number = value(run)
    return None if number is None else str(number)
