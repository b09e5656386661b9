"""Chinese text drawn from a published trigram model: what the recogniser's own n-grams are counted from.

The open-gram project's model of Chinese words, as the input method SunPinyin ships it (Debian package
``sunpinyin-data``, CC BY-SA 3.0), knows 72,000 words from far more text than can be had as text. Sentences drawn from
it carry what it knows into n-grams of any other unit (A. Deoras et al., Variational approximation of long-span
language models for LVCSR, ICASSP 2011).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.exceptions import TrainingError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN = 0
STOP = 71
"""The full stop's number; a text begins after one."""
_ENDS = frozenset((71, 72, 73, 74, 75, 79))  # 。；？！：…
_COMMA = 70
_MARKS = frozenset(range(70, 80))
_WORD = 18  # bits of a word's number
_CHAINS = 10_000
_LONGEST = 200  # words of a text, where there are few
_WARM_UP = 5  # words that a chain has to forget that it began after nothing


class Nodes:
    """N-grams of one length, sorted by (parent, word).

    Args:
        words: int64 (n-grams,), number of the last word.
        probabilities: float64 (n-grams,), of the last word after the others.
        children: int64 (n-grams + 1,), where the longer n-grams that go on begin; of the longest, zeros.
    """

    def __init__(self, words: Integers, probabilities: Floats, children: Integers) -> None:
        self.words, self.children = words, children
        self.sums = np.concatenate(([0.0], np.cumsum(probabilities)))

    def keys(self, parents: Nodes) -> Integers:
        """(parent, word) of each n-gram as one number, ascending."""
        return np.repeat(np.arange(len(parents.words)), np.diff(parents.children)) << _WORD | self.words


class Trigrams:
    """A back-off trigram model of words.

    Args:
        unigrams, bigrams, trigrams: its n-grams.
        words: the written words by number.
    """

    def __init__(self, unigrams: Nodes, bigrams: Nodes, trigrams: Nodes, words: Sequence[str]) -> None:
        self.unigrams, self.bigrams, self.trigrams, self.words = unigrams, bigrams, trigrams, words
        self._place = np.full(1 << _WORD, -1, dtype=np.int64)
        self._place[unigrams.words] = np.arange(len(unigrams.words))
        self._bigram_keys = bigrams.keys(unigrams)
        self._trigram_keys = trigrams.keys(bigrams)

    def draw(self, before: Integers, last: Integers, generator: np.random.Generator) -> Integers:
        """A next word for each of many texts.

        Args:
            before, last: int64 (texts,), numbers of the two words before.

        Returns:
            int64 (texts,). With the probability that a context leaves to the shorter one, a word of the shorter one is
            drawn, again until it is none that the longer context knows: that is what back-off weights stand for.
        """
        unigram = self._place[last]
        bigram = self._find(self._bigram_keys, self._place[before], last)
        drawn = np.full(len(last), -1, dtype=np.int64)
        known = np.flatnonzero(bigram >= 0)
        drawn[known] = _child(self.bigrams, self.trigrams, bigram[known], generator)
        waiting = np.flatnonzero(drawn < 0)
        while len(waiting):
            words = _child(self.unigrams, self.bigrams, unigram[waiting], generator)
            shorter = np.flatnonzero(words < 0)
            while len(shorter):
                places = np.searchsorted(self.unigrams.sums, generator.random(len(shorter)) * self.unigrams.sums[-1], "right")
                words[shorter] = self.unigrams.words[np.minimum(places, len(self.unigrams.words)) - 1]
                shorter = shorter[self._find(self._bigram_keys, unigram[waiting][shorter], words[shorter]) >= 0]
            drawn[waiting] = words
            waiting = waiting[self._find(self._trigram_keys, bigram[waiting], words) >= 0]
        return drawn

    def sentences(self, words: int, seed: int = 0) -> Iterator[str]:
        """Draw texts of about ``words`` words and cut them at their punctuation, which is dropped.

        Half of the texts are cut at commas too, since speech is cut at pauses. Where a word is unknown to the model, one
        sentence ends and another begins.
        """
        generator = np.random.default_rng(seed)
        chains = min(-(-words // _LONGEST), _CHAINS)
        last = np.full(chains, STOP, dtype=np.int64)
        before = last
        steps = []
        for _ in range(_WARM_UP + -(-words // chains)):
            before, last = last, self.draw(before, last, generator)
            steps.append(last)
        for chain in np.stack(steps[_WARM_UP:], axis=1).tolist():
            cut_at_commas = generator.random() < 0.5
            sentence: list[str] = []
            for word in [*chain, STOP]:
                if word == UNKNOWN or word in _ENDS or (word == _COMMA and cut_at_commas):
                    if len("".join(sentence)) > 1:
                        yield "".join(sentence)
                    sentence = []
                    cut_at_commas = generator.random() < 0.5
                elif word not in _MARKS:
                    sentence.append(self.words[word])

    @staticmethod
    def _find(keys: Integers, parents: Integers, words: Integers) -> Integers:
        """Places of n-grams, -1 where there is none or no parent."""
        wanted = np.maximum(parents, 0) << _WORD | words
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((parents >= 0) & (keys[places] == wanted), places, -1)


def _child(parents: Nodes, nodes: Nodes, places: Integers, generator: np.random.Generator) -> Integers:
    """A word that the model knows after each n-gram, drawn by its probability, or -1 with the probability left."""
    first, end = parents.children[places], parents.children[places + 1]
    aim = nodes.sums[first] + generator.random(len(places))
    found = np.searchsorted(nodes.sums, aim, "right") - 1
    return np.where(found < end, nodes.words[np.minimum(found, len(nodes.words) - 1)], -1)


def read(folder: Path) -> Trigrams:
    """Read ``lm_sc.t3g`` and the words of ``pydict_sc.bin``, as SunPinyin 2 and 3 write them.

    The model: order, a flag for logarithms, the sizes of the levels; 2^16 probabilities and 2^14 back-off weights;
    nodes of 96 bits (word 18, back-off 14, probability 16, low children 16, thread 25, high children 7) and at last
    leaves of 64 bits (word 18, low probability 14, thread 25, high probability 2).

    Raises:
        TrainingError: a file is missing or is something else.
    """
    path = folder / "lm_sc.t3g"
    try:
        data = path.read_bytes()
        order, logarithms, *sizes = struct.unpack_from("<6I", data)
        if order != 3 or logarithms or len(data) != 24 + 4 * (2**16 + 2**14) + 12 * sum(sizes[:3]) + 8 * sizes[3]:
            raise ValueError("the sizes do not fit")
        probabilities = np.frombuffer(data, "<f4", 2**16, 24).astype(np.float64)
        place = 24 + 4 * (2**16 + 2**14)
        levels: list[Nodes] = []
        for size, bytes_each in zip(sizes, (12, 12, 12, 8), strict=True):
            fields = np.frombuffer(data, "<u4", size * bytes_each // 4, place).reshape(size, -1).astype(np.int64)
            place += size * bytes_each
            # The last of each level only says where the one before ends.
            own, children = fields[:-1], np.zeros(size, dtype=np.int64)
            if bytes_each == 12:
                values = own[:, 1] & 0xFFFF
                children = (fields[:, 1] >> 16) + (fields[:, 2] >> 25 << 16)
                children[-1] = sizes[len(levels) + 1] - 1
            else:
                values = (own[:, 0] >> _WORD) + ((own[:, 1] >> 25 & 3) << 14)
            levels.append(Nodes(own[:, 0] & (1 << _WORD) - 1, probabilities[values], children))
        if any((np.diff(level.children) < 0).any() for level in levels[1:3]):
            raise ValueError("the children are not in order")
        path = folder / "pydict_sc.bin"
        data = path.read_bytes()
        count, _, begin = struct.unpack_from("<3I", data)
        words = data[begin:].decode("utf-32-le").split("\0")
        if len(words) != count + 1 or max(int(level.words.max()) for level in levels) >= count:
            raise ValueError("the words are not the model's")
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise TrainingError(
            f"{path}: is not SunPinyin's language data ({error}); give the folder of the package sunpinyin-data."
        ) from error
    return Trigrams(levels[1], levels[2], levels[3], words)
