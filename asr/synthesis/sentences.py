"""Sentences to be spoken: cleaned, and chosen so that every character is heard."""

from __future__ import annotations

import heapq
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from asr.corpora.aishell import join_words
from asr.text.mandarin import digits_to_numerals

SHORTEST, LONGEST = 4, 25
"""Characters of a sentence."""

_END = re.compile(r"(?<=[。！？；!?;…])")
_CLAUSE = re.compile(r"(?<=[，,：:])")
_HAN = re.compile(r"[\u4e00-\u9fff]")
# What is said is Han and Latin; these marks are kept in the written form, the others are dropped.
_ALLOWED = re.compile(r"[\u4e00-\u9fffA-Za-z，。！？、；：《》 ]+\Z")
_MARKS = str.maketrans({",": "，", ";": "；", ":": "：", "?": "？", "!": "！"})
_DROPPED = re.compile(r"[“”‘’\"'「」『』【】\[\]<>…—~～*#_·]+")
_REMARK = re.compile(r"[（(][^（）()]*[）)]")
_UNFINISHED = re.compile(r"^[，。！？、；：》 ]+|[，、；：《 ]+$")


def common_characters() -> frozenset[str]:
    """The 3,755 common characters: level 1 of GB 2312."""
    codes = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    # The last row is not full.
    return frozenset(code.decode("gb2312") for code in codes if code < b"\xd7\xfa")


def spoken(text: str) -> str:
    """A sentence as it is scored: without punctuation, spaces between Latin words only."""
    return join_words("".join(c if c.isalnum() else " " for c in text))


def clean(text: str) -> Iterator[str]:
    """Cut a text into sentences that can be read aloud: 4 to 25 characters, punctuation kept, numbers written out.

    A sentence that is too long is cut at its commas. What holds other signs than Han characters, Latin letters and
    punctuation is left out.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _DROPPED.sub("", _REMARK.sub("", text)).translate(_MARKS)
    # A full stop between Han characters; elsewhere it may be a decimal point.
    text = re.sub(r"(?<=[\u4e00-\u9fff])\.+", "。", text)
    for sentence in _END.split(text):
        pieces = [sentence] if len(spoken(sentence)) <= LONGEST else _joined(_CLAUSE.split(sentence))
        for piece in pieces:
            finished = _UNFINISHED.sub("", digits_to_numerals(piece.strip())).strip()
            if _ALLOWED.match(finished) and SHORTEST <= len(spoken(finished)) <= LONGEST and _readable(finished):
                yield finished


def _readable(text: str) -> bool:
    """Whether most of it is Han."""
    return len(_HAN.findall(text)) * 4 >= 3 * len(spoken(text).replace(" ", ""))


def _joined(clauses: Iterable[str]) -> Iterator[str]:
    """Clauses put together again while they are short enough, so that not every piece is a fragment."""
    waiting = ""
    for clause in clauses:
        if waiting and len(spoken(waiting + clause)) > LONGEST:
            yield waiting
            waiting = clause
        else:
            waiting += clause
    yield waiting


def select(sentences: Iterable[str], limit: int, common: frozenset[str] | None = None) -> Iterator[str]:
    """Order sentences so that after any number of them rare characters were heard as often as can be.

    Greedy: the next sentence is the one with the largest gain for its length, where a character heard n times gains
    1 / (1 + n), a quarter of that if it is not common. The gain only falls, so the queue is put right lazily
    (M. Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978).

    Args:
        limit: sentences to give at most.
        common: characters with full weight; None: ``common_characters``.
    """
    common = common_characters() if common is None else common
    heard: Counter[str] = Counter()

    def gain(characters: frozenset[str], length: int) -> float:
        worth = sum((1.0 if c in common else 0.25) / (1 + heard[c]) for c in characters)
        # Every sentence has silence around it that takes as long as six characters.
        return worth / (length + 6)

    candidates = list(dict.fromkeys(sentences))
    characters = [frozenset(_HAN.findall(sentence)) for sentence in candidates]
    queue = [(-gain(characters[index], len(sentence)), index) for index, sentence in enumerate(candidates)]
    heapq.heapify(queue)
    given = 0
    while queue and given < limit:
        _before, index = heapq.heappop(queue)
        now = -gain(characters[index], len(candidates[index]))
        if queue and now > queue[0][0] + 1e-12:
            heapq.heappush(queue, (now, index))
            continue
        heard.update(characters[index])
        given += 1
        yield candidates[index]


def mix(sentences: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """After every second sentence one of the others, which are left out where they come again."""
    waiting = iter(dict.fromkeys(others))
    for number, sentence in enumerate(sentences, start=1):
        yield sentence
        if number % 2 == 0:
            yield from itertools.islice(waiting, 1)
