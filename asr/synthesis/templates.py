"""Sentences by templates: what news and everyday talk say with numbers, dates, places, names, commands and Latin letters.

A text corpus has few of them, or has them in digits; a recogniser that never heard 幺 or C P U cannot write them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.resources import files

import yaml

from asr.exceptions import ConfigurationError

_DIGITS = "零一二三四五六七八九"
_SLOT = re.compile(r"\{(\w+)\}")


def templates(number: int, seed: int = 0) -> Iterator[str]:
    """Draw so many sentences; numbers are written as they are spoken, 幺 for the 1 of telephone numbers.

    Raises:
        ConfigurationError: the libraries of the extra ``synthesis`` are not installed.
    """
    generator = random.Random(seed)
    patterns, words = _data()
    items = {**words, "city": list(_cities())}
    for _ in range(number):
        yield _SLOT.sub(lambda match: _fill(match[1], generator, items), generator.choice(patterns))


def _fill(slot: str, generator: random.Random, items: dict[str, list[str]]) -> str:
    return _NUMBERS[slot](generator) if slot in _NUMBERS else generator.choice(items[slot])


def _amount(number: int) -> str:
    from cn2an import an2cn

    return str(an2cn(number, "low"))


def _digits(generator: random.Random, shortest: int, longest: int, telephone: bool = True) -> str:
    spoken = "".join(generator.choice(_DIGITS) for _ in range(generator.randint(shortest, longest)))
    return spoken.replace("一", "幺") if telephone and generator.random() < 0.7 else spoken


def _person(generator: random.Random) -> str:
    _, words = _data()
    return generator.choice(words["surname"]) + "".join(generator.choices(words["given"], k=generator.choice((1, 2, 2))))


def _large(generator: random.Random) -> str:
    digits = generator.randint(1, 4)
    number = generator.randint(10 ** (digits - 1), 10**digits - 1)
    text = _amount(number)
    # Both are said, the second more often before units.
    return "两" + text[1:] if text[0] == "二" and len(text) > 1 and text[1] in "百千" and generator.random() < 0.5 else text


def _decimal(generator: random.Random) -> str:
    places = "".join(generator.choice(_DIGITS) for _ in range(generator.choice((1, 1, 2))))
    return f"{_amount(generator.randint(0, 60))}点{places}"


def _clock(generator: random.Random) -> str:
    part = generator.choice(("早上", "上午", "中午", "下午", "晚上", "凌晨", ""))
    hour = generator.randint(1, 12)
    minute = generator.choice(("", "半", "一刻", f"{_amount(generator.randint(10, 59))}分"))
    return f"{part}{'两' if hour == 2 else _amount(hour)}点{minute}"


_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "degrees": lambda r: _amount(r.randint(1, 38)),
    "minutes": lambda r: r.choice(["两", "三", "五", "十", "十五", "二十", "三十", "四十五"]),
    "number": lambda r: _amount(r.randint(1, 200)),
    "small": lambda r: r.choice("一两三四五六七八九十"),
    "score": lambda r: _amount(r.randint(0, 12)),
    "rank": lambda r: _amount(r.randint(1, 12)),
    "age": lambda r: _amount(r.randint(3, 90)),
    "room": lambda r: _digits(r, 3, 4),
    "code": lambda r: _digits(r, 4, 6),
    "digits": lambda r: _digits(r, 4, 11),
    "phone": lambda r: ("幺" + r.choice("三五七八") + _digits(r, 9, 9)) if r.random() < 0.6 else _digits(r, 8, 8),
    "amount": _large,
    "decimal": _decimal,
    "clock": _clock,
    "person": _person,
    "weekday": lambda r: r.choice(("星期", "周", "下周")) + r.choice("一二三四五六"),
    "date": lambda r: f"{_amount(r.randint(1, 12))}月{_amount(r.randint(1, 30))}{r.choice('日号')}",
    "month": lambda r: _amount(r.randint(1, 12)),
    "year": lambda r: r.choice(("二零一", "二零二", "二零零", "一九九")) + r.choice(_DIGITS),
    "letters": lambda r: "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(r.randint(1, 4))),
}


@lru_cache(maxsize=1)
def _data() -> tuple[list[str], dict[str, list[str]]]:
    """Sentences with slots, and the words of the slots."""
    content = yaml.safe_load(files("asr.synthesis").joinpath("templates.yaml").read_text(encoding="utf-8"))
    return content["sentences"], {slot: words.split() for slot, words in content["words"].items()}


@lru_cache(maxsize=1)
def _cities() -> tuple[str, ...]:
    """Names of places that jieba's dictionary has at least ten times."""
    try:
        dictionary = files("jieba").joinpath("dict.txt").read_text(encoding="utf-8")
    except ImportError as error:
        raise ConfigurationError(f"synthesis needs {error.name}; install the extra with pip install 'asr[synthesis]'.") from error
    rows = (line.split(" ") for line in dictionary.splitlines())
    return tuple(word for word, count, kind in rows if kind == "ns" and int(count) >= 10 and 2 <= len(word) <= 4)
