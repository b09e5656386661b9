"""Drawing from a trigram model against its probabilities written out, and SunPinyin's files against a packer of its format."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from asr.exceptions import TrainingError
from asr.training import open_gram

NAMES = {100: "机", 101: "器", 102: "学习"}
UNIGRAMS = {0: 0.1, 70: 0.1, 71: 0.2, 100: 0.2, 101: 0.1, 102: 0.3}
BIGRAMS = {(100, 101): 0.5, (100, 102): 0.2, (101, 71): 0.3, (101, 102): 0.3, (71, 100): 0.6}
TRIGRAMS = {(100, 101, 102): 0.7, (100, 101, 0): 0.1}


def probability(first: int, second: int, word: int) -> float:
    """Back-off written out, the weights from what is left."""

    def bigram(before: int, last: int) -> float:
        if (before, last) in BIGRAMS:
            return BIGRAMS[before, last]
        known = [pair[1] for pair in BIGRAMS if pair[0] == before]
        left = 1 - sum(BIGRAMS[before, each] for each in known)
        return left * UNIGRAMS[last] / (1 - sum(UNIGRAMS[each] for each in known))

    if (first, second, word) in TRIGRAMS:
        return TRIGRAMS[first, second, word]
    known = [triple[2] for triple in TRIGRAMS if triple[:2] == (first, second)]
    left = 1 - sum(TRIGRAMS[first, second, each] for each in known)
    return left * bigram(second, word) / (1 - sum(bigram(second, each) for each in known))


def packed(folder: Path) -> Path:
    """The model as SunPinyin writes it: root and three levels, each with one more node that ends it."""
    values = sorted({1.0, *UNIGRAMS.values(), *BIGRAMS.values(), *TRIGRAMS.values()})
    # High places, so that the two bits of a leaf's probability that are stored apart count.
    table = np.zeros(2**16, dtype="<f4")
    table[40_000 : 40_000 + len(values)] = values
    place = {value: 40_000 + index for index, value in enumerate(values)}

    def node(word: int, value: float, child: int) -> bytes:
        return struct.pack("<3I", word | 5 << 18, place[value] | (child & 0xFFFF) << 16, 3 | 1 << 23 | (child >> 16) << 25)

    def leaf(word: int, value: float) -> bytes:
        number = place[value]
        return struct.pack("<2I", word | (number & 0x3FFF) << 18, 3 | 1 << 23 | (number >> 14) << 25)

    unigrams, bigrams, trigrams = sorted(UNIGRAMS), sorted(BIGRAMS), sorted(TRIGRAMS)
    before = {word: sum(pair[0] < word for pair in bigrams) for word in unigrams}
    between = {pair: sum(triple[:2] < pair for triple in trigrams) for pair in bigrams}
    levels = [
        [node(0, 1.0, 0), node(0, 1.0, len(unigrams))],
        [*(node(word, UNIGRAMS[word], before[word]) for word in unigrams), node(0, 1.0, len(bigrams))],
        [*(node(pair[1], BIGRAMS[pair], between[pair]) for pair in bigrams), node(0, 1.0, 0)],
        [*(leaf(triple[2], TRIGRAMS[triple]) for triple in trigrams), leaf(0, 1.0)],
    ]
    folder.mkdir(exist_ok=True)
    head = struct.pack("<6I", 3, 0, *(len(level) for level in levels))
    nodes = b"".join(part for level in levels for part in level)
    (folder / "lm_sc.t3g").write_bytes(head + table.tobytes() + bytes(4 * 2**14) + nodes)
    words = "".join(f"{NAMES.get(number, '')}\0" for number in range(103))
    (folder / "pydict_sc.bin").write_bytes(struct.pack("<4I", 103, 0, 16, 0) + words.encode("utf-32-le"))
    return folder


@pytest.mark.parametrize(("first", "second"), [(100, 101), (71, 100), (102, 101), (101, 102)])
def test_words_are_drawn_as_often_as_they_are_probable(tmp_path: Path, first: int, second: int) -> None:
    model = open_gram.read(packed(tmp_path))
    count = 40_000
    drawn = model.draw(np.full(count, first), np.full(count, second), np.random.default_rng(1))
    found = Counter(drawn.tolist())
    expected = {word: probability(first, second, word) for word in UNIGRAMS}
    assert sum(expected.values()) == pytest.approx(1)
    for word, share in expected.items():
        assert found[word] / count == pytest.approx(share, abs=0.01)


def test_sentences_are_whole_words_without_marks_and_repeat_from_a_seed(tmp_path: Path) -> None:
    model = open_gram.read(packed(tmp_path))
    sentences = list(model.sentences(500, seed=3))
    assert sentences == list(model.sentences(500, seed=3)) != list(model.sentences(500, seed=4))
    assert {character for sentence in sentences for character in sentence} == set("机器学习")
    assert all(len(sentence) > 1 and "学" not in sentence.replace("学习", "") for sentence in sentences)


@pytest.mark.parametrize("name", ["lm_sc.t3g", "pydict_sc.bin"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    path = packed(tmp_path) / name
    content = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(content[:-4] if damage == "cut" else b"RIFF" * 9)
    with pytest.raises(TrainingError, match=f"{name}: is not SunPinyin's language data"):
        open_gram.read(tmp_path)
