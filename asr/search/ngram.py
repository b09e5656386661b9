"""N-gram language models with back-off: read, written, and asked for many texts at once.

An n-gram is a node under its first n - 1 tokens, and the nodes of a level are sorted by (parent, token); so a level is
one sorted tensor of keys, and every question is a binary search in it.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from asr.exceptions import CheckpointError
from asr.model.storage import write_tensors

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_MANY = 255  # children of an n-gram that do not fit one byte
_NAMES = {"<S>": BEGIN, "</S>": END, "<UNK>": UNKNOWN, "<unknown>": UNKNOWN}


@dataclass(frozen=True)
class Level:
    """All n-grams of one length.

    Attributes:
        keys: int64 (n-grams,), ascending: place of the first n - 1 tokens in the level before, times the number of
            tokens, plus the last token; of single tokens, the token itself.
        log_probabilities: float32 (n-grams,), natural logarithm of the last token's probability after the others.
        backoffs: float32 (n-grams,), natural logarithm of the weight of the shorter context.
    """

    keys: Tensor
    log_probabilities: Tensor
    backoffs: Tensor

    def find(self, keys: Tensor) -> Tensor:
        """Places of keys int64 (...), -1 where there is none."""
        if not len(self.keys):
            return torch.full_like(keys, -1)
        places = torch.searchsorted(self.keys, keys.contiguous()).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[places] == keys, places, -1)


@dataclass(frozen=True)
class Ngrams:
    """A back-off model over a vocabulary.

    Attributes:
        tokens: what the n-grams are made of, ``<s>``, ``</s>`` and ``<unk>`` among them.
        levels: from single tokens up.
        unit: ``token`` where the vocabulary is a recogniser's, ``word`` where it is written words.
    """

    tokens: tuple[str, ...]
    levels: tuple[Level, ...]
    unit: str

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.levels)

    def begin(self, rows: int) -> Tensor:
        """Contexts of ``rows`` texts that have not begun, int64 (rows, order - 1): see ``advance``."""
        contexts = torch.full((rows, max(self.order - 1, 1)), -1)
        contexts[:, 0] = self.tokens.index(BEGIN)
        return contexts

    def score(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Natural log-probabilities of next tokens, int64 (rows, candidates) -> float32 of the same shape."""
        scores = self.levels[0].log_probabilities[tokens]
        for size, level in enumerate(self.levels[1:]):
            if not len(level.keys):
                break
            parents = contexts[:, size, None]
            known = parents >= 0
            backoffs = torch.where(known, self.levels[size].backoffs[parents.clamp(min=0)], 0.0)
            places = torch.where(known, level.find(parents * len(self.tokens) + tokens), -1)
            scores = torch.where(places >= 0, level.log_probabilities[places.clamp(min=0)], scores + backoffs)
        return scores

    def advance(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Contexts after one more token each, int64 (rows,): for each length the place of the last tokens, -1 if unknown."""
        columns = [tokens]
        for size, level in enumerate(self.levels[1:-1]):
            parents = contexts[:, size]
            columns.append(torch.where(parents >= 0, level.find(parents * len(self.tokens) + tokens), -1))
        return torch.stack(columns, dim=1)

    def sentence(self, tokens: list[int]) -> float:
        """Natural log-probability of a whole text, its end included."""
        contexts = self.begin(1)
        total = 0.0
        for token in (*tokens, self.tokens.index(END)):
            total += float(self.score(contexts, torch.tensor([[token]])))
            contexts = self.advance(contexts, torch.tensor([token]))
        return total


def write(model: Ngrams, path: Path) -> None:
    """Write a model as safetensors, three to five bytes an n-gram.

    Of a key only the last token and the number of children are kept. Logarithms are put into 256 bins of equally many
    n-grams (E. Whittaker, B. Raj: Quantization-based language model compression, Eurospeech 2001), which loses nothing
    where no more than 256 different ones occur.
    """
    tensors = {"tokens": torch.tensor(list("\n".join(model.tokens).encode()), dtype=torch.uint8)}
    narrow = torch.int16 if len(model.tokens) <= 2**15 else torch.int32
    for size, level in enumerate(model.levels, start=1):
        values = {"log_probabilities": level.log_probabilities}
        if size < model.order:
            values["backoffs"] = level.backoffs
        for name, value in values.items():
            tensors[f"{name}.{size}"], tensors[f"{name}.{size}.bins"] = _into_bins(value)
        if size > 1:
            children = torch.bincount(level.keys // len(model.tokens), minlength=len(model.levels[size - 2].keys))
            tensors[f"last.{size}"] = (level.keys % len(model.tokens)).to(narrow)
            tensors[f"children.{size - 1}"] = children.clamp(max=_MANY).to(torch.uint8)
            tensors[f"children.{size - 1}.many"] = children[children >= _MANY].to(torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, path, metadata={"kind": "ngrams", "order": str(model.order), "unit": model.unit})


def _into_bins(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values as numbers of bins, uint8, and what the bins stand for, float32, ascending."""
    bins = torch.unique(values.float())
    if len(bins) > 256:
        # The median: <s>, which is never said, lies far below all others.
        bins = torch.unique(torch.stack([part.median() for part in values.float().sort().values.tensor_split(256)]))
    return torch.bucketize(values.float(), (bins[1:] + bins[:-1]) / 2).to(torch.uint8), bins


def read(path: Path) -> Ngrams:
    """Read what ``write`` wrote.

    Raises:
        CheckpointError: the file is damaged or something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        order = int(metadata["order"])
        tokens = tuple(bytes(tensors["tokens"].tolist()).decode().split("\n"))
        levels: list[Level] = []
        for size in range(1, order + 1):
            values = tensors[f"log_probabilities.{size}.bins"][tensors[f"log_probabilities.{size}"].long()]
            keys = torch.arange(len(values))
            if size > 1:
                children = tensors[f"children.{size - 1}"].long()
                children[children == _MANY] = tensors[f"children.{size - 1}.many"].long()
                keys = torch.arange(len(children)).repeat_interleave(children) * len(tokens) + tensors[f"last.{size}"].long()
            backoffs = torch.zeros(len(values))
            if size < order:
                backoffs = tensors[f"backoffs.{size}.bins"][tensors[f"backoffs.{size}"].long()]
            levels.append(Level(keys, values, backoffs))
    except (OSError, SafetensorError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path}: is not an n-gram model of this program ({error}); write it again.") from error
    return Ngrams(tokens, tuple(levels), metadata.get("unit", "token"))


def read_arpa(path: Path) -> Ngrams:
    """Read an ARPA file, plain or ``.gz``; its unit is ``word``.

    Raises:
        CheckpointError: the file is damaged or something else.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return _parse_arpa(cast(IO[str], file))
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: is not a complete ARPA language model ({error}); give another file.") from error


def _parse_arpa(file: IO[str]) -> Ngrams:
    numbers: dict[str, int] = {}
    places: dict[tuple[int, ...], int] = {}
    levels: list[Level] = []
    rows: list[tuple[int, int, float, float, tuple[int, ...]]] = []
    order = 0

    def finish() -> None:
        nonlocal places
        rows.sort()
        places = {row[4]: place for place, row in enumerate(rows)}
        levels.append(
            Level(
                torch.tensor([first * len(numbers) + last for first, last, *_ in rows], dtype=torch.int64),
                torch.tensor([row[2] for row in rows], dtype=torch.float32) * math.log(10),
                torch.tensor([row[3] for row in rows], dtype=torch.float32) * math.log(10),
            )
        )
        rows.clear()

    for line in file:
        line = line.strip("\n")
        if line.startswith("\\") and line.rstrip().endswith("-grams:"):
            if order:
                finish()
            order += 1
            if line.strip() != f"\\{order}-grams:":
                raise ValueError(f"'{line.strip()}' where \\{order}-grams: was expected")
        elif line.startswith("\\end\\"):
            finish()
            break
        elif order and line.strip():
            fields = line.split("\t") if "\t" in line else line.split(" ")
            words = fields[1].split(" ") if "\t" in line else fields[1 : order + 1]
            rest = fields[2:] if "\t" in line else fields[order + 1 :]
            if order == 1:
                numbers[_NAMES.get(words[0], words[0])] = len(numbers)
            gram = tuple(numbers[_NAMES.get(word, word)] for word in words)
            parent = places[gram[:-1]] if order > 1 else 0
            rows.append((parent, gram[-1], float(fields[0]), float(rest[0]) if rest else 0.0, gram))
    else:
        raise ValueError("it has no \\end\\")
    tokens = list(numbers)
    if missing := [name for name in (BEGIN, END, UNKNOWN) if name not in numbers]:
        raise ValueError(f"it has no {missing[0]}")
    return Ngrams(tuple(tokens), tuple(levels), "word")


def write_arpa(model: Ngrams, path: Path) -> None:
    """Write a model as ARPA, plain or ``.gz``."""
    opener = gzip.open if path.suffix == ".gz" else open
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wt", encoding="utf-8") as file:
        print("\\data\\", file=file)
        for size, level in enumerate(model.levels, start=1):
            print(f"ngram {size}={len(level.keys)}", file=file)
        names: list[str] = [""]
        for size, level in enumerate(model.levels, start=1):
            print(f"\n\\{size}-grams:", file=file)
            # Each name is that of its parent and one more token.
            count = len(model.tokens)
            names = [f"{names[key // count]} {model.tokens[key % count]}".strip() for key in level.keys.tolist()]
            values = (level.log_probabilities / math.log(10)).tolist()
            backoffs = (level.backoffs / math.log(10)).tolist()
            for name, value, backoff in zip(names, values, backoffs, strict=True):
                end = f"\t{backoff:.6f}" if size < model.order else ""
                print(f"{max(value, -99):.6f}\t{name}{end}", file=file)
        print("\n\\end\\", file=file)
