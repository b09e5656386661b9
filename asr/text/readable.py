"""Readable training text: the words of a transcript with the capitals and punctuation of a recogniser's hypothesis.

LibriSpeech's transcripts are one block of capitals without a mark. A recogniser that writes readable text is right about
nearly all words, so that its marks can be moved to the transcript's words by aligning the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapidfuzz.distance import Levenshtein

from asr.text.english import normalize

# Short forms that are usual in print; the normaliser writes them out again, so that no score changes.
_TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}
_ALWAYS_CAPITAL = {"i", "i'm", "i'll", "i'd", "i've"}
_ALWAYS_CAPITAL_KEYS = {word.replace("'", "") for word in _ALWAYS_CAPITAL}


def _listed(words: str) -> set[str]:
    return set(words.split())


# The point behind these ends no sentence.
_ABBREVIATIONS = _listed("ms prof capt gen col lt sgt maj rev hon sen rep gov jr sr esq no vs etc co inc messrs") | set(_TITLES)
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_UNITS = _listed("one two three four five six seven eight nine first second third fourth fifth sixth seventh eighth ninth")
_NUMBER_WORDS = _TENS | _UNITS
_NUMBER_WORDS |= _listed("zero oh ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_NUMBER_WORDS |= _listed("hundred hundreds thousand thousands million billion half quarter point and a percent per cent")
_NUMBER_WORDS |= _listed("dollar dollars cent cents pound pounds shilling shillings pence oclock")
_LONGEST_NUMBER = 10
# The last mark goes behind so many words that the hypothesis lacks at the end; of more, nobody knows the sentence.
_MISSED_AT_END = 2

# Costs of the alignment. Two words that have nothing in common (1.1) are a better pair than a deletion beside an
# insertion (1.4), and a word inside a number is a worse pair than the whole number.
_GAP, _UNLIKE, _ALIKE = 0.7, 1.1, 0.6
_WRONG_NUMBER = 0.2

_MARKS = ".,?!;:"
_STRENGTH = {"": 0, ",": 1, ":": 2, ";": 3, ".": 4, "!": 5, "?": 6}
_DASH = re.compile(r"\s*(?:--+|[—–])\s*|\s+-\s+")
_ELLIPSIS = re.compile(r"\.\.+|…")  # the recording ends here, or the speaker waits
_REMARK = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>")


@dataclass(frozen=True)
class _Word:
    """A word of the hypothesis.

    Attributes:
        text: letters, digits and inner marks.
        mark: punctuation behind it, empty or a key of ``_STRENGTH``.
        first: whether a sentence begins with it, so that its capital says nothing about the word.
        hyphen: whether a hyphen joins it to the next.
        point: an abbreviation's own point stands behind it.
    """

    text: str
    mark: str = ""
    first: bool = False
    hyphen: bool = False
    point: bool = False

    @property
    def key(self) -> str:
        return _key(self.text)

    @property
    def digits(self) -> bool:
        return any(character.isdigit() for character in self.text)

    @property
    def capital(self) -> bool:
        """Whether the first letter is one; a number has none and counts where a sentence begins."""
        return next((c.isupper() for c in self.text if c.isalpha()), self.first and self.digits)


def restore(reference: str, hypothesis: str) -> str:
    """Give a transcript the capitals and punctuation of a hypothesis.

    The reference's words always win: what the hypothesis adds is left out, what it lacks or has wrong stands as the
    reference has it, and numbers stay in words. Only Mr., Mrs., Dr. and St. are shortened where the hypothesis has
    them. Hyphens come from the hypothesis. Quotation marks and brackets do not: in pieces of a recording they are
    rarely closed. Both sides are equal after ``english.normalize``.

    Args:
        reference: words of the transcript in any case, without punctuation.
        hypothesis: the same speech as a recogniser wrote it.

    Returns:
        The readable text; its first letter is a capital where the hypothesis's is.
    """
    words = reference.lower().split()
    heard = _read(hypothesis)
    out: list[str] = []
    marks = [""] * len(words)
    hyphens = [False] * len(words)
    capital = [False] * len(words)
    small = [False] * len(words)
    names = {word.key for word in heard if word.capital and not word.first}
    spans = _align([_key(word) for word in words], heard)
    spelled = list(words)
    owner: dict[int, int] = {}  # hypothesis word -> the last reference word of its pair
    last = -1
    for (start, end), (begin, stop) in spans:
        pair = heard[begin:stop]
        if start == end:
            # The word is left out, its mark is not: "right, you know." without "you know" still ends the sentence.
            if last >= 0:
                marks[last] = max(marks[last], *(each.mark for each in pair), key=_STRENGTH.__getitem__)
            continue
        if pair:
            last = end - 1
            spelled[start:end] = _spell(words[start:end], pair)
            # A sentence's first capital is not the word's; it is given below to whichever word begins the sentence.
            own = pair[0].capital and (not pair[0].first or pair[0].key in names)
            capital[start] = own and _related(words[start:end], pair)
            small[start] = pair[0].first and not pair[0].capital  # "Where?" he asked.
            marks[last] = pair[-1].mark
            for index in range(begin, stop):
                owner[index] = last
            if len(pair) == 1 and pair[0].digits:
                for index in range(start, last):
                    hyphens[index] = words[index] in _TENS and words[index + 1] in _UNITS
    for index, joined in enumerate(heard[:-1]):
        # A hyphen stays where both of its words have a pair and the two pairs are neighbours.
        here, there = owner.get(index), owner.get(index + 1)
        if joined.hyphen and here is not None and there is not None and there == here + 1:
            hyphens[here] = True
    if last >= 0 and 0 < len(words) - 1 - last <= _MISSED_AT_END:
        marks[last], marks[-1] = "", marks[last]
    begins = bool(heard) and heard[0].capital
    for index, word in enumerate(spelled):
        if (begins and not small[index]) or capital[index] or word in _ALWAYS_CAPITAL:
            word = _capitalize(word)
        joint = "-" if hyphens[index] and not marks[index] and index + 1 < len(words) else " "
        out.append(word + _behind(word, marks[index]) + joint)
        begins = marks[index] in (".", "?", "!")
    return "".join(out).strip()


def _key(text: str) -> str:
    """What is compared of a word: letters and digits in lower case."""
    return "".join(character for character in text.lower() if character.isalnum())


def _behind(word: str, mark: str) -> str:
    return mark if not (mark == "." and word.endswith(".")) else ""


def _capitalize(word: str) -> str:
    """First letter in upper case, apostrophes before it skipped."""
    for index, character in enumerate(word):
        if character.isalpha():
            return word[:index] + character.upper() + word[index + 1 :]
    return word


def _read(hypothesis: str) -> list[_Word]:
    """The words of a hypothesis with what stands behind each."""
    text = _REMARK.sub(" ", hypothesis).replace("’", "'").replace("‘", "'")
    text = _DASH.sub(", ", _ELLIPSIS.sub(" ", text))
    found: list[_Word] = []
    for token in text.split():
        body = token.rstrip("\"'”)]}>" + _MARKS)
        tail = token[len(body) :]
        core = body.lstrip("\"“([{<'" + _MARKS)
        if tail.startswith("'"):  # the boys' hats
            core += "'" if core.lower().endswith("s") else ""
        mark = "".join(character for character in tail if character in _MARKS)
        mark = mark.rstrip(",;:")[-1:] or mark[-1:]
        pieces = [piece for piece in re.split("-+", core) if _key(piece)]
        if not pieces:
            if mark and found:
                found[-1] = replace(found[-1], mark=max(mark, found[-1].mark, key=_STRENGTH.__getitem__))
            continue
        point = mark == "." and (
            pieces[-1].lower() in _ABBREVIATIONS
            or ("." in pieces[-1] and not pieces[-1][-1].isdigit())
            or (len(pieces[-1]) == 1 and pieces[-1].isupper() and pieces[-1] != "I")
        )
        found += [_Word(piece, hyphen=True) for piece in pieces[:-1]]
        found.append(_Word(pieces[-1], "" if point else mark, point=point))
    if found and found[-1].point:
        found[-1] = replace(found[-1], mark=".")
    for index in range(len(found)):
        if index == 0 or found[index - 1].mark in (".", "?", "!"):
            found[index] = replace(found[index], first=True)
    return found


def _cost(word: str, heard: str) -> float:
    """Cost of pairing two words by their keys."""
    if word == heard or _TITLES.get(heard) == word:
        return 0.0
    distance = Levenshtein.normalized_distance(word, heard)
    return distance if distance <= _ALIKE else _UNLIKE


Span = tuple[int, int]


def _align(words: Sequence[str], heard: Sequence[_Word]) -> list[tuple[Span, Span]]:
    """Cheapest alignment: pairs of spans of the reference and of the hypothesis, in order.

    One word with one, two with one and one with two where their letters are the same, several words with one number in
    digits; or a word with none.
    """
    keys = [word.key for word in heard]
    infinity = float("inf")
    costs = [[infinity] * (len(heard) + 1) for _ in range(len(words) + 1)]
    steps = [[(0, 0)] * (len(heard) + 1) for _ in range(len(words) + 1)]
    costs[0][0] = 0.0
    numbers = {column: normalize(heard[column].text) for column in range(len(heard)) if heard[column].digits}
    for row in range(len(words) + 1):
        for column in range(len(heard) + 1):
            here = costs[row][column]
            for down, right, cost in _moves(words, heard, keys, numbers, row, column):
                if here + cost < costs[row + down][column + right] - 1e-9:
                    costs[row + down][column + right] = here + cost
                    steps[row + down][column + right] = (down, right)
    row, column = len(words), len(heard)
    spans: list[tuple[Span, Span]] = []
    while row or column:
        down, right = steps[row][column]
        spans.append(((row - down, row), (column - right, column)))
        row, column = row - down, column - right
    return spans[::-1]


def _moves(
    words: Sequence[str], heard: Sequence[_Word], keys: Sequence[str], numbers: dict[int, str], row: int, column: int
) -> list[tuple[int, int, float]]:
    """Words of the reference, words of the hypothesis, and cost, of each way on."""
    left, right = len(words) - row, len(keys) - column
    moves = []
    if left and right:
        moves.append((1, 1, _cost(words[row], keys[column])))
        if left > 1 and words[row] + words[row + 1] == keys[column]:
            moves.append((2, 1, 0.05))
        if right > 1 and words[row] == keys[column] + keys[column + 1]:
            moves.append((1, 2, 0.05))
        if column in numbers:
            for length in range(1, min(left, _LONGEST_NUMBER) + 1):
                span = words[row : row + length]
                if normalize(" ".join(span)) == numbers[column]:
                    moves.append((length, 1, 0.0))
                elif all(word in _NUMBER_WORDS for word in span):
                    moves.append((length, 1, _WRONG_NUMBER * length))
    if left:
        moves.append((1, 0, _GAP))
    if right:
        moves.append((0, 1, _GAP))
    return moves


def _related(words: Sequence[str], heard: Sequence[_Word]) -> bool:
    """Whether a capital of the hypothesis is one of these words: of a name that is only spelled differently."""
    spoken, found = "".join(_key(word) for word in words), "".join(word.key for word in heard)
    if found in _ALWAYS_CAPITAL_KEYS:
        return spoken == found
    return _cost(spoken, found) <= _ALIKE


def _spell(words: Sequence[str], heard: Sequence[_Word]) -> list[str]:
    """The reference's words with the letters' case of the hypothesis: McDonald, USA."""
    if len(words) == 1 and len(heard) == 1 and _TITLES.get(heard[0].key) == words[0]:
        return [f"{heard[0].key.capitalize()}."]
    if len(heard) > 1 or "".join(_key(word) for word in words) != heard[0].key:
        return list(words)
    letters = iter([character for character in heard[0].text if character.isalnum()])
    spelled: list[str] = []
    for word in words:
        cased = [next(letters) if character.isalnum() else character for character in word]
        # The first letter is decided by the sentence.
        spelled.append("".join(cased[:1]).lower() + "".join(cased[1:]) if not spelled else "".join(cased))
    return spelled
