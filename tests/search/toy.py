"""Models so small that everything they could say can be enumerated."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from itertools import groupby, product
from typing import Any

import torch
from torch import Tensor

from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded, Recognizer
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer

TOKENIZER = CharacterTokenizer.build(["ab"])
SPOKEN = tuple(range(4, len(TOKENIZER)))  # space, a, b
LONGEST = 4

# A decoder of byte pairs and a CTC head of letters: tokens of several letters and of none, two ways to write one text, bytes
# that are no text by themselves (together they are ’), a digit and a letter that the head has not.
PIECES = (b"a", b"B", b" ab", b"b", b".", b"-a", b" ", b"\xe2\x80", b"\x99", b"7", "é".encode())
BYTE_PAIRS = BytePairTokenizer([*(base64.b64encode(each).decode() for each in PIECES), "<|endoftext|>", "<|startoftranscript|>"])
LETTERS = CharacterTokenizer.of(" 'ab")


def recognizer(seed: int, longest: int = LONGEST) -> Recognizer:
    """A random model that says at most so many characters."""
    return _recognizer(
        seed,
        ModelConfiguration(
            encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64),
            decoder=DecoderConfiguration(layers=1, feed_forward=64, maximum_length=longest + 1, suppressed=(0, 1, 2)),
        ),
        len(TOKENIZER),
    )


def byte_pair_recognizer(seed: int, longest: int = LONGEST) -> Recognizer:
    """A random model that says at most so many byte pairs, and whose CTC head has letters."""
    start = BYTE_PAIRS.identifier("<|startoftranscript|>")
    return _recognizer(
        seed,
        ModelConfiguration(
            encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64),
            decoder=DecoderConfiguration(
                layers=1,
                feed_forward=64,
                maximum_length=longest + 1,
                prompt=("<|startoftranscript|>",),
                suppressed=(start,),
            ),
            ctc_characters=" 'ab",
        ),
        len(BYTE_PAIRS),
    )


def _recognizer(seed: int, configuration: ModelConfiguration, vocabulary: int) -> Recognizer:
    torch.manual_seed(seed)
    model = Recognizer(configuration, vocabulary)
    assert model.decoder is not None
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.4)
        model.decoder.token_embedding.weight *= 0.3
        # CTC is never so sure that its text replaces an empty one.
        assert model.ctc is not None
        model.ctc.weight *= 0.3
    return model.eval()


def encoded(rows: int = 3, positions: int = 4) -> Encoded:
    """Random encoder output of different lengths."""
    lengths = torch.randint(positions - 2, positions + 1, (rows,))
    lengths[0] = positions
    return Encoded(torch.randn(rows, positions, 32), lengths)


def one(several: Encoded, row: int) -> Encoded:
    """One utterance without padding."""
    return Encoded(several.values[row : row + 1, : several.lengths[row]], several.lengths[row : row + 1])


@torch.no_grad()
def decoder_score(
    model: Recognizer,
    utterance: Encoded,
    text: tuple[int, ...],
    stop: bool = True,
    tokenizer: CharacterTokenizer | BytePairTokenizer = TOKENIZER,
) -> float:
    """The decoder's log-probability of a text, computed in one pass without a cache."""
    assert model.decoder is not None
    settings = model.decoder.configuration
    tokens = torch.tensor([[*(tokenizer.identifier(token) for token in settings.prompt), *text]])
    logits = model.decoder(tokens, utterance.values, utterance.lengths)[0]
    logits[:, list(settings.suppressed)] = float("-inf")
    spoken = logits.double().log_softmax(dim=-1)
    wanted = [*text, tokenizer.stop] if stop else list(text)
    return sum(float(spoken[place, token]) for place, token in enumerate(wanted))


def alignments(log_probabilities: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of every text, by adding all paths (positions, vocabulary) that collapse to it."""
    positions, vocabulary = log_probabilities.shape
    values = log_probabilities.double().tolist()
    found: dict[tuple[int, ...], float] = {}
    for path in product(range(vocabulary), repeat=positions):
        text = tuple(token for token, _ in groupby(path) if token != 0)
        found[text] = found.get(text, 0.0) + math.exp(sum(values[place][token] for place, token in enumerate(path)))
    return {text: math.log(probability) for text, probability in found.items()}


def every_text(longest: int = LONGEST - 1, spoken: Sequence[int] = SPOKEN) -> list[tuple[int, ...]]:
    """All texts that can end by themselves."""
    return [text for length in range(longest + 1) for text in product(spoken, repeat=length)]


def written(text: str, characters: str = " 'ab") -> str:
    """A text as a head of these characters writes it: small letters, "?" for what it has not, single spaces between words."""
    text = re.sub(r"[^\w']+", " ", text.replace("’", "'").lower()).strip()
    return "".join(each if each in characters else "?" for each in text)


class Passes:
    """Counts how often a decoder reads tokens from now on."""

    def __init__(self, decoder: Decoder) -> None:
        self.count = 0
        self._states = decoder.states
        decoder.states = self  # type: ignore[assignment, method-assign]

    def __call__(self, *arguments: Any) -> Tensor:
        self.count += 1
        return self._states(*arguments)
