"""Random models with a non-autoregressive decoder, for the tests of its searches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr.model.configuration import EncoderConfiguration, ModelConfiguration, NonautoregressiveConfiguration
from asr.model.nonautoregressive import NonautoregressiveDecoder
from asr.model.recognizer import Encoded, Recognizer
from asr.text.tokenizer import CharacterTokenizer

TOKENIZER = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog"])
WAYS = ("predictor", "row", "ctc", "alignment")


def recognizer(seed: int = 0, **changes: Any) -> Recognizer:
    """A random model whose answers depend on what it sees: weights are large."""
    torch.manual_seed(seed)
    second = NonautoregressiveConfiguration.model_validate(
        {"layers": 1, "feed_forward": 64, "lengths": WAYS, "acoustic_embedding": True, "tokens_per_second": 20, **changes}
    )
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64), decoder=None, nonautoregressive=second
    )
    model = Recognizer(settings, len(TOKENIZER))
    assert model.nonautoregressive is not None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not name.startswith("encoder"):
                torch.nn.init.normal_(parameter, std=0.4)
        model.nonautoregressive.token_embedding.weight[TOKENIZER.stop] *= 1.3
        assert model.ctc is not None
        # Training never asks CTC for start and stop.
        model.ctc.bias[[TOKENIZER.start, TOKENIZER.stop]] = -1e4
    return model.eval()


def second(model: Recognizer) -> NonautoregressiveDecoder:
    """Its non-autoregressive decoder."""
    assert model.nonautoregressive is not None
    return model.nonautoregressive


def random_encoded(rows: int = 5, longest: int = 20, samples: int = 640) -> tuple[Encoded, Tensor]:
    """Noise in place of an encoder's output, and the samples of each utterance, so many a position."""
    lengths = torch.randint(3, longest, (rows,))
    values = torch.randn(rows, longest, 32) * (torch.arange(longest) < lengths[:, None])[..., None]
    return Encoded(values, lengths), lengths * samples


def one_of(encoded: Encoded, row: int) -> Encoded:
    """An utterance of a batch alone, without padding."""
    return Encoded(encoded.values[row : row + 1, : encoded.lengths[row]], encoded.lengths[row : row + 1])
