"""How a model came to its text: what every part of it computed for one short utterance.

The search emits the tokens. One pass over all of them then gives what each step saw: in masked self-attention a step
sees only what is to its left, so reading the whole text at once computes what the steps computed one after another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import files
from asr.audio.files import SAMPLE_RATE
from asr.audio.segmentation import is_silent
from asr.exceptions import AudioError
from asr.model.checkpoint import Checkpoint
from asr.model.decoder import Decoder, DecoderWeights
from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import ctc_greedy_search
from asr.search.decoding import decode
from asr.search.greedy import forbidden_tokens, greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer

LONGEST_SECONDS = 30.0
# Added silence that is shown; the rest of it is one number a row.
_SILENCE_SECONDS = 1.0
# Cells of all attention maps of a kind: with more, neighbouring positions are merged.
_CELLS = 1_500_000
_FINEST = 240
_BEST = 5

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A token, its text as a person reads it, and its probability."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Step:
    """One step of the decoder.

    Attributes:
        best: the five most probable next tokens, in order; in place of the fifth the chosen one where it is not among them.
        chosen: the one that the search took; None where the bound ended it.
    """

    best: tuple[Candidate, ...]
    chosen: Candidate | None


@dataclass(frozen=True)
class CtcPosteriors:
    """What the CTC head says at each position.

    Attributes:
        text: of its best path.
        symbols: the rows: blank, then the tokens of the best path in the order of their first place.
        probabilities: float32 (rows, positions).
        path: row of the most probable token at each position.
    """

    text: str
    symbols: tuple[str, ...]
    probabilities: Array
    path: tuple[int, ...]


@dataclass(frozen=True)
class Explanation:
    """An utterance and everything that is shown of how it was recognised.

    Positions beyond the shown part, all of them in the silence that the model adds to an utterance, and positions that
    were merged are accounted for: each row of attention still sums to 1.

    Attributes:
        path: the file.
        samples: float32 (samples,), 16 kHz.
        features: float32 (frames, mels), as the encoder reads them.
        frame_seconds: from one frame to the next.
        width: features of an encoder position.
        positions: of the encoder, for the whole input.
        position_seconds: from one position to the next.
        hypothesis: of the model's own search over the decoder, which ``asr transcribe`` uses as well, or over the CTC head where
            there is no decoder.
        prompt: the tokens that the decoder starts with.
        steps: of the decoder, the stop token's last; empty without a decoder.
        self_attention: float32 (layers, heads, length, length); row n reads the prompt and tokens up to n.
        cross_attention: float32 (layers, heads, length, cells + 1), the last column the positions that are not shown.
        encoder_attention: float32 (layers, heads, cells, cells + 1), likewise.
        cross_seconds, encoder_seconds: of a cell.
        ctc: what the CTC head says, where there is one.
    """

    path: Path
    samples: Array
    features: Array
    frame_seconds: float
    width: int
    positions: int
    position_seconds: float
    hypothesis: Hypothesis
    prompt: tuple[str, ...]
    steps: tuple[Step, ...]
    self_attention: Array
    cross_attention: Array
    encoder_attention: Array
    cross_seconds: float
    encoder_seconds: float
    ctc: CtcPosteriors | None

    @property
    def duration(self) -> float:
        """Of the recording, in seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def shown_seconds(self) -> float:
        """Of the pictures' time axis: the recording and some of the silence added after it."""
        return len(self.features) * self.frame_seconds

    @property
    def tokens(self) -> tuple[str, ...]:
        """What each step emitted, as a person reads it; empty where the bound ended the search."""
        return tuple(step.chosen.text if step.chosen else "" for step in self.steps)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the decoder read: the prompt, then what it had emitted."""
        return (*self.prompt, *self.tokens[:-1]) if self.steps else ()


@torch.inference_mode()
def explain(checkpoint: Checkpoint, path: str | Path, start: float = 0.0, duration: float | None = None) -> Explanation:
    """Recognise a short utterance and keep what every part of the model computed.

    Args:
        checkpoint: model and tokenizer.
        path: audio file.
        start: seconds from its beginning.
        duration: seconds; None reads to the end.

    Raises:
        AudioError: the file cannot be read, is silent, longer than 30 s or too short for a single frame.
    """
    path = Path(path)
    samples = files.read(path, start, min(duration or math.inf, LONGEST_SECONDS + 1))
    if len(samples) > LONGEST_SECONDS * SAMPLE_RATE:
        raise AudioError(f"{path}: is longer than {LONGEST_SECONDS:.0f} s; choose an utterance with --start and --duration.")
    if is_silent(samples):
        raise AudioError(f"{path}: is silent; give a recording with speech.")
    model = checkpoint.model
    device = next(model.parameters()).device
    lengths = torch.tensor([len(samples)])
    features, frames = model.features(torch.from_numpy(samples)[None].to(device), lengths.to(device))
    if not int(frames):
        raise AudioError(f"{path}: is too short for a single frame; give a recording with speech.")
    frame_seconds = model.front_end.configuration.frame_shift_ms / 1000
    position_seconds = frame_seconds * subsampling(model)
    seconds = min(len(samples) / SAMPLE_RATE + _SILENCE_SECONDS, int(frames) * frame_seconds)
    encoder_weights = _Merged(math.ceil(seconds / position_seconds), len(model.encoder.layers))
    encoded = model.encode_features(features, frames, encoder_weights)
    positions = int(encoded.lengths)
    shown = min(math.ceil(seconds / position_seconds), positions)

    prompt: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    weights = DecoderWeights()
    if model.decoder is None:
        (hypothesis,) = ctc_greedy_search(model, checkpoint.ctc_tokenizer, encoded)
    else:
        (hypothesis,) = _search(checkpoint, encoded, lengths)
        prompt = model.decoder.configuration.prompt
        steps, weights = _steps(checkpoint, model.decoder, encoded, hypothesis)
    maps = sum(each.shape[1] * each.shape[2] for each in weights.cross_attention)
    factor = max(1, math.ceil(shown * maps / _CELLS))
    return Explanation(
        path=path,
        samples=samples,
        features=features[0, : math.ceil(seconds / frame_seconds)].float().cpu().numpy(),
        frame_seconds=frame_seconds,
        width=model.configuration.encoder.width,
        positions=positions,
        position_seconds=position_seconds,
        hypothesis=hypothesis,
        prompt=prompt,
        steps=steps,
        self_attention=_stacked(weights.self_attention),
        cross_attention=_stacked([merge_keys(each, shown, factor) for each in weights.cross_attention]),
        encoder_attention=_stacked(encoder_weights),
        cross_seconds=position_seconds * factor,
        encoder_seconds=position_seconds * encoder_weights.factor,
        ctc=_posteriors(checkpoint, encoded, shown) if model.ctc is not None else None,
    )


def subsampling(model: Recognizer) -> int:
    """Frames of an encoder position."""
    frames = torch.tensor(10_000)
    return round(10_000 / int(model.encoder.positions(frames)))


def label(tokenizer: CharacterTokenizer | BytePairTokenizer, token: int) -> str:
    """A token as a person reads it: special tokens by name, and bytes that are only a part of a character as numbers."""
    text = tokenizer.symbol(token)
    if not text:
        return tokenizer.tokens[token]
    if "\ufffd" in text and isinstance(tokenizer, BytePairTokenizer):
        return f"<{tokenizer.pieces[token].hex(' ').replace(' ', '·')}>"
    return text


def merge_keys(weights: Tensor, shown: int, factor: int) -> Tensor:
    """Attention (..., positions) to cells of ``factor`` positions each, and one last cell for all beyond ``shown``.

    The weight of a cell is the sum of its positions', so that rows still sum to 1.
    """
    inside, outside = weights[..., :shown], weights[..., shown:]
    inside = torch.nn.functional.pad(inside, (0, -shown % factor))
    inside = inside.reshape(*inside.shape[:-1], -1, factor)
    return torch.cat((inside.sum(dim=-1), outside.sum(dim=-1, keepdim=True)), dim=-1)


def merge_queries(weights: Tensor, shown: int, factor: int) -> Tensor:
    """Attention (..., positions, keys) to one row for each ``factor`` of the first positions, their mean."""
    rows = torch.split(weights[..., :shown, :], factor, dim=-2)  # type: ignore[no-untyped-call]
    return torch.stack([each.mean(dim=-2) for each in rows], dim=-2)


class _Merged(list[Tensor]):
    """Keeps of each layer's self-attention what is shown: all of 1,500 positions squared in 12 layers are gigabytes."""

    def __init__(self, shown: int, layers: int) -> None:
        super().__init__()
        self.shown = shown
        self.layers = layers
        self.factor = 1

    def append(self, weights: Tensor) -> None:
        """Add the weights of a layer, (1, heads, positions, positions)."""
        shown = min(self.shown, weights.shape[-1])
        cells = min(_FINEST, max(1, math.isqrt(_CELLS // (self.layers * weights.shape[1]))))
        self.factor = max(1, math.ceil(shown / cells))
        super().append(merge_queries(merge_keys(weights, shown, self.factor), shown, self.factor))


def _search(checkpoint: Checkpoint, encoded: Encoded, lengths: Tensor) -> list[Hypothesis]:
    """The text that the model writes as it comes; greedy where another decoder than the autoregressive one writes that."""
    options = DecodingOptions().resolved(checkpoint.model, checkpoint.folder)
    if options.decoder not in ("autoregressive", "joint"):
        return greedy_search(checkpoint.model, checkpoint.tokenizer, encoded, lengths)
    return decode(checkpoint.model, checkpoint.tokenizer, encoded, lengths, options, checkpoint.ctc_tokenizer)


def _steps(
    checkpoint: Checkpoint, decoder: Decoder, encoded: Encoded, hypothesis: Hypothesis
) -> tuple[tuple[Step, ...], DecoderWeights]:
    """The decoder's steps of a text, and its attention over prompt and text."""
    tokenizer = checkpoint.tokenizer
    device = encoded.values.device
    prompt = [tokenizer.identifier(token) for token in decoder.configuration.prompt]
    weights = DecoderWeights()
    inputs = torch.tensor([[*prompt, *hypothesis.tokens]], device=device)
    logits = decoder(inputs, encoded.values, encoded.lengths, weights=weights)[0, len(prompt) - 1 :]
    first, later = forbidden_tokens(decoder, len(tokenizer), device)
    log_probabilities = (logits + torch.stack((first, *[later] * len(hypothesis.tokens)))).log_softmax(dim=-1)
    stop = (tokenizer.stop,) if hypothesis.finish_reason == "stop" else (None,)
    steps = []
    for row, token in zip(log_probabilities.exp().cpu(), (*hypothesis.tokens, *stop), strict=True):
        best = row.topk(min(_BEST, len(tokenizer)))
        shown = best.indices.tolist()
        if token is not None and token not in shown:
            shown[-1] = token  # a beam may take what is not among the likeliest
        candidates = [_candidate(tokenizer, row, each) for each in shown]
        steps.append(Step(tuple(candidates), None if token is None else _candidate(tokenizer, row, token)))
    return tuple(steps), weights


def _candidate(tokenizer: CharacterTokenizer | BytePairTokenizer, probabilities: Tensor, token: int) -> Candidate:
    return Candidate(token, label(tokenizer, token), float(probabilities[token]))


def _posteriors(checkpoint: Checkpoint, encoded: Encoded, shown: int) -> CtcPosteriors:
    tokenizer = checkpoint.ctc_tokenizer
    probabilities = checkpoint.model.ctc_log_probabilities(encoded)[0, :shown].exp().cpu()
    path = probabilities.argmax(dim=-1).tolist()
    rows = list(dict.fromkeys((tokenizer.blank, *path)))
    return CtcPosteriors(
        text=ctc_greedy_search(checkpoint.model, tokenizer, encoded)[0].text,
        symbols=("<blank>", *(label(tokenizer, token) for token in rows[1:])),
        probabilities=probabilities[:, rows].T.contiguous().numpy(),
        path=tuple(rows.index(token) for token in path),
    )


def _stacked(weights: Sequence[Tensor]) -> Array:
    """Attention of all layers, each (1, heads, rows, columns) -> (layers, heads, rows, columns)."""
    if not weights:
        return np.zeros((0, 0, 0, 0), dtype=np.float32)
    return torch.cat(list(weights)).float().cpu().numpy()
