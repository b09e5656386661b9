"""Models so small that everything they could say can be enumerated."""

from __future__ import annotations

import math
from itertools import groupby, product

import torch
from torch import Tensor

from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Encoded, Recognizer
from asr.text.tokenizer import CharacterTokenizer

TOKENIZER = CharacterTokenizer.build(["ab"])
SPOKEN = tuple(range(4, len(TOKENIZER)))  # space, a, b
LONGEST = 4


def recognizer(seed: int, longest: int = LONGEST) -> Recognizer:
    """A random model that says at most so many characters."""
    torch.manual_seed(seed)
    model = Recognizer(
        ModelConfiguration(
            encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64),
            decoder=DecoderConfiguration(layers=1, feed_forward=64, maximum_length=longest + 1, suppressed=(0, 1, 2)),
        ),
        len(TOKENIZER),
    )
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
def decoder_score(model: Recognizer, utterance: Encoded, text: tuple[int, ...], stop: bool = True) -> float:
    """The decoder's log-probability of a text, computed in one pass without a cache."""
    assert model.decoder is not None
    settings = model.decoder.configuration
    tokens = torch.tensor([[TOKENIZER.start, *text]])
    logits = model.decoder(tokens, utterance.values, utterance.lengths)[0]
    logits[:, list(settings.suppressed)] = float("-inf")
    spoken = logits.double().log_softmax(dim=-1)
    wanted = [*text, TOKENIZER.stop] if stop else list(text)
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


def every_text(longest: int = LONGEST - 1) -> list[tuple[int, ...]]:
    """All texts that can end by themselves."""
    return [text for length in range(longest + 1) for text in product(SPOKEN, repeat=length)]
