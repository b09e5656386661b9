"""Phrase biasing: given words and names are easier to find, by a bonus for each of their tokens.

The phrases are an automaton (Aho and Corasick 1975) that always is in the longest beginning of a phrase that the text ends
with. A beginning that does not become a phrase gives its bonus back, as in Zhao et al. 2019, section 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.search.scorers import PrefixScorer
from asr.text.tokenizer import Tokenizer


@dataclass
class _Node:
    depth: int
    held: int = 0  # tokens whose bonus is given back where no phrase comes of them
    ends: bool = False
    children: dict[int, int] = field(default_factory=dict)
    failure: int = 0


class Phrases:
    """Words and names that are expected; a language model as far as a search is concerned.

    Args:
        phrases: as they are written; found at the beginning of words.
        bonus: for each token.

    Raises:
        ConfigurationError: there is no phrase.
    """

    def __init__(self, phrases: Iterable[str], bonus: float) -> None:
        self.phrases = tuple(dict.fromkeys(phrase.strip() for phrase in phrases if phrase.strip()))
        if not self.phrases:
            raise ConfigurationError("no phrase is given; write one a line.")
        self.bonus = bonus
        self._automata: dict[tuple[str, ...], list[_Node]] = {}

    def scorer(self, tokenizer: Tokenizer, rows: int, device: torch.device | str = "cpu") -> PrefixScorer:
        """A scorer of ``rows`` texts that have not begun."""
        nodes = self._automata.get(tokenizer.tokens)
        if nodes is None:
            nodes = self._automata[tokenizer.tokens] = _automaton(_spelled(self.phrases, tokenizer))
        # Before the first word nothing is written, but a word may begin as after a space.
        space = tokenizer.encode("a b")[1:-1]
        begin = nodes[0].children.get(space[0], 0) if len(space) == 1 and tokenizer.symbol(space[0]) == " " else 0
        if begin:
            nodes, begin = [*nodes, _Node(0, children=nodes[begin].children)], len(nodes)
        return _PhraseScorer(nodes, self.bonus, tokenizer.stop, rows, begin)


def read(path: Path) -> tuple[str, ...]:
    """Phrases of a file, one a line; lines that begin with # are comments.

    Raises:
        ConfigurationError: the file cannot be read or holds no phrase.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as UTF-8 text ({error}); give a file of phrases.") from error
    phrases = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not phrases:
        raise ConfigurationError(f"{path}: holds no phrase; write one a line.")
    return phrases


def _spelled(phrases: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Tokens of each phrase as it may be written: after a space and at the beginning, with a capital as well."""
    texts = {form for phrase in phrases for form in (phrase, phrase[0].upper() + phrase[1:])}
    spaced = tokenizer.encode("a b")[1:-1]
    found: set[tuple[int, ...]] = set()
    for text in texts:
        whole = tuple(tokenizer.encode(text))
        if len(spaced) == 1 and tokenizer.symbol(spaced[0]) == " ":
            found.add((*spaced, *whole))  # a token of its own is before every word
        else:
            found.update((whole, tuple(tokenizer.encode(f" {text}"))))
    return sorted(each for each in found if each)


def _automaton(phrases: Iterable[Sequence[int]]) -> list[_Node]:
    nodes = [_Node(0)]
    for phrase in phrases:
        place = 0
        for token in phrase:
            if token not in nodes[place].children:
                nodes[place].children[token] = len(nodes)
                nodes.append(_Node(nodes[place].depth + 1))
            place = nodes[place].children[token]
        nodes[place].ends = True
    waiting = deque([0])
    while waiting:
        place = waiting.popleft()
        node = nodes[place]
        for token, child in node.children.items():
            nodes[child].held = 0 if nodes[child].ends else node.held + 1
            if place:
                nodes[child].failure = _follow(nodes, node.failure, token)
            waiting.append(child)
    return nodes


def _follow(nodes: list[_Node], place: int, token: int) -> int:
    while place and token not in nodes[place].children:
        place = nodes[place].failure
    return nodes[place].children.get(token, 0)


class _PhraseScorer:
    def __init__(self, nodes: list[_Node], bonus: float, stop: int, rows: int, begin: int) -> None:
        self._nodes = nodes
        self._bonus = bonus
        self._stop = stop
        self._places = [begin] * rows
        self.gain = bonus * max(node.depth for node in nodes)

    def score(self, candidates: Tensor) -> Tensor:
        scores = [
            [self._bonus * self._difference(place, token) for token in tokens]
            for place, tokens in zip(self._places, candidates.tolist(), strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float64, device=candidates.device).reshape(candidates.shape)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        self._places = [
            _follow(self._nodes, self._places[row], token) if token >= 0 else self._places[row]
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)
        ]

    def _difference(self, place: int, token: int) -> int:
        """Tokens whose bonus is earned, less those whose bonus is given back."""
        node = self._nodes[place]
        if token == self._stop:
            return -node.held
        child = node.children.get(token)
        if child is not None:
            return self._nodes[child].depth - node.depth  # 1, and at the text's beginning the space before it as well
        after = self._nodes[_follow(self._nodes, place, token)]
        return (after.depth if after.ends else after.held) - node.held
