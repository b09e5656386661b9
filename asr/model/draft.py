"""A draft guesses what a decoder writes next, so that the decoder reads several tokens at a time and only says which are right.

One layer on top of the decoder's last: it is given the decoder's state, the token that came of it, and the same memory of the
utterance, and says the state after that token (EAGLE, Y. Li et al. 2024; guessing and verifying, Y. Leviathan et al. 2023). What
it says is never written unless the decoder itself would write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model import checkpoint as model_folder
from asr.model.attention import one_by_one
from asr.model.decoder import Decoder, DecoderLayer
from asr.model.layers import FeedForward, Residual
from asr.model.precision import Precision, QuantizedEmbedding, QuantizedLinear

_TOKEN = 0.2  # what a new draft is told of the token, beside what is usual for a linear layer


class DraftConfiguration(StrictModel):
    """The draft, as ``config.yaml`` of its folder has it."""

    kind: Literal["draft"] = "draft"
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    feed_forward: int = Field(ge=1)
    activation: Literal["relu", "gelu", "swish"] = "gelu"
    vocabulary: int = Field(ge=1, description="so many of the decoder's tokens are guessed, the first; common byte pairs are")


class Draft(nn.Module):
    """The state of a decoder and its next token in, the state after that token out.

    Args:
        configuration: of the draft.
        dropout: in training.
    """

    def __init__(self, configuration: DraftConfiguration, dropout: float = 0.0) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.mix = nn.Linear(2 * c.width, c.width)
        self.cross_attention_residual = Residual(c.width, "before", dropout)
        self.query = nn.Linear(c.width, c.width)
        self.attended = nn.Linear(c.width, c.width)
        self.feed_forward_residual = Residual(c.width, "before", dropout)
        self.feed_forward = FeedForward(c.width, c.feed_forward, c.activation, dropout)

    def forward(self, states: Tensor, tokens: Tensor, memory: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Guess the states after the next tokens.

        Args:
            states: (batch, length, width), as ``Decoder.states`` gives them, or as this has guessed them.
            tokens: embeddings of the tokens that come of them, (batch, length, width).
            memory: keys and values of the decoder's last cross-attention, (heads, positions, head width), of each row.

        Returns:
            (batch, length, width), for ``Decoder.scores``.
        """
        width = states.shape[-1:]
        mixed = states + self.mix(torch.cat((F.layer_norm(states, width), F.layer_norm(tokens, width)), dim=-1))

        def cross_attention(normal: Tensor) -> Tensor:
            query = self.query(normal).unflatten(-1, (self.configuration.heads, -1)).transpose(1, 2)
            return cast(Tensor, self.attended(one_by_one(query, memory, None).transpose(1, 2).flatten(2)))

        hidden = self.cross_attention_residual(mixed, cross_attention)
        return cast(Tensor, self.feed_forward_residual(hidden, self.feed_forward))


def begin(decoder: Decoder, vocabulary: int, dropout: float) -> Draft:
    """A new draft for a decoder: its last layer once more, to which the next token is told.

    Args:
        decoder: with norms before its layers' parts.
        vocabulary: tokens that are guessed; no more than there are.
        dropout: in training.
    """
    settings = decoder.configuration
    layer = cast(DecoderLayer, decoder.layers[-1])
    assert layer.cross_attention is not None
    assert layer.cross_attention_residual is not None
    tokens, width = cast(Tensor, decoder.token_embedding.weight).shape
    found = DraftConfiguration(
        width=width,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        activation=settings.activation,
        vocabulary=min(vocabulary, tokens),
    )
    draft = Draft(found, dropout)
    with torch.no_grad():
        nn.init.zeros_(draft.mix.bias)
        draft.mix.weight[:, :width] = 0
        draft.mix.weight[:, width:] *= _TOKEN
    for own, its in (
        (draft.cross_attention_residual, layer.cross_attention_residual),
        (draft.query, layer.cross_attention.query),
        (draft.attended, layer.cross_attention.output),
        (draft.feed_forward_residual, layer.feed_forward_residual),
        (draft.feed_forward, layer.feed_forward),
    ):
        own.load_state_dict(its.state_dict())
    return draft


def load(folder: Path, device: torch.device | str = "cpu", precision: Precision = "float32") -> Draft:
    """Read a checkpoint folder of ``asr train-draft``, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or does not fit, or the folder is another model's.
        ConfigurationError: the configuration is not valid.
    """
    model_folder.check_files(folder, tokens=False)
    if model_folder.kind(folder) != "draft":
        raise CheckpointError(f"{folder}: is no draft; give a folder that asr train-draft wrote.")
    settings = configuration.load(folder / model_folder.CONFIGURATION, DraftConfiguration)
    return model_folder.filled(folder, lambda: Draft(settings), precision).eval().to(device)


def beside(decoder: Decoder, folder: Path) -> Guesser:
    """The draft of a folder for a decoder, where that computes and in its precision; for errors see ``load`` and ``Guesser``."""
    embedding = decoder.token_embedding
    precision: Precision = "int8"
    if isinstance(embedding, nn.Embedding):
        precision = "bfloat16" if embedding.weight.dtype == torch.bfloat16 else "float32"
    draft = load(folder, next(decoder.parameters()).device, precision)
    try:
        return Guesser(draft, decoder)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


class Guesser:
    """A draft beside the decoder that it was made for.

    Args:
        draft: with weights.
        decoder: gives embeddings, the last norm and the output layer.

    Raises:
        CheckpointError: they do not fit.
    """

    def __init__(self, draft: Draft, decoder: Decoder) -> None:
        self.draft = draft
        self.decoder = decoder
        settings, embedding = draft.configuration, decoder.token_embedding
        rows = embedding.rows if isinstance(embedding, QuantizedEmbedding) else cast(Tensor, embedding.weight)
        if rows.shape[1] != settings.width or len(rows) < settings.vocabulary or decoder.configuration.heads != settings.heads:
            raise CheckpointError(
                f"the draft is for a decoder of width {settings.width}, {settings.heads} heads and at least "
                f"{settings.vocabulary} tokens, which this is not; make one by asr train-draft."
            )
        self._output: QuantizedLinear | None = None
        if isinstance(embedding, QuantizedEmbedding):
            common = slice(settings.vocabulary)
            self._output = QuantizedLinear(embedding.rows[common], embedding.scale[common, 0], None)

    def scores(self, states: Tensor) -> Tensor:
        """Scores of the tokens that are guessed, float32: (..., width) -> (..., tokens)."""
        normal = self.decoder.norm(states)
        if self._output is not None:
            return cast(Tensor, self._output(normal))
        weight = cast(Tensor, self.decoder.token_embedding.weight)[: self.draft.configuration.vocabulary]
        return F.linear(normal, weight.to(normal.dtype)).float()

    def guess(self, state: Tensor, token: int, memory: tuple[Tensor, Tensor], most: int, least: float, stop: int) -> list[int]:
        """Tokens that may follow ``token``, none after the stop token, and none that is not likely.

        Args:
            state: (width,), of which the token came.
            token: the one that was written.
            memory: see ``Draft``.
            most: so many at most.
            least: their probability at the least.
            stop: the stop token.
        """
        found: list[int] = []
        states = state[None, None]
        for _ in range(most):
            embedded = self.decoder.token_embedding(torch.tensor([[token]], device=state.device))
            states = self.draft(states, embedded, [memory])
            probability, best = self.scores(states)[0, 0].softmax(dim=-1).max(dim=-1)
            token = int(best)
            if float(probability) < least:
                break
            found.append(token)
            if token == stop:
                break
        return found
