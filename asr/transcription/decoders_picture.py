"""The autoregressive decoder against the non-autoregressive one, as a picture: what is known at each step of a real run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from asr.audio import files
from asr.audio.segmentation import is_silent
from asr.exceptions import AudioError, ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.search.greedy import greedy_search
from asr.search.mask_predict import MaskPredictSteps, mask_predict_search
from asr.transcription.explanation import label
from asr.transcription.explanation_page import visible
from asr.transcription.explanation_picture import ACCENT, LINE, PALE, SOFT, STOP, TEXT, families, save

# More tokens than these cannot be read in one picture.
LONGEST_TEXT = 80
_CELL, _SIDE, _MARGIN = 0.24, 1.25, 0.3


@dataclass(frozen=True)
class KnownTokens:
    """What two decoders know at each step, as texts of tokens; None where a token is not known yet.

    Attributes:
        autoregressive: a row before each step, and the whole text, stop token included, after the last.
        nonautoregressive: a row before each pass, and the whole text after the last; by alignment, texts of several lengths.
        rewritten: whether each pass writes the whole text anew, by alignment.
    """

    autoregressive: tuple[tuple[str | None, ...], ...]
    nonautoregressive: tuple[tuple[str | None, ...], ...]
    rewritten: bool = False


@torch.inference_mode()
def known_tokens(
    checkpoint: Checkpoint, path: Path, start: float = 0.0, duration: float | None = None, iterations: int = 4
) -> KnownTokens:
    """Decode an utterance by both decoders of a model.

    Args:
        checkpoint: a model with both.
        path: audio file.
        start: seconds from its beginning.
        duration: seconds; None reads to the end.
        iterations: passes of the non-autoregressive decoder.

    Raises:
        ConfigurationError: the model has not both decoders.
        AudioError: the file cannot be read or is silent, or its text is longer than 80 tokens.
    """
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if model.decoder is None or model.nonautoregressive is None:
        raise ConfigurationError("the model has not both an autoregressive and a non-autoregressive decoder; give one that has.")
    samples = files.read(path, start, duration)
    if is_silent(samples):
        raise AudioError(f"{path}: is silent; give a recording with speech.")
    device = next(model.parameters()).device
    lengths = torch.tensor([len(samples)])
    encoded = model.encode(torch.from_numpy(samples)[None].to(device), lengths.to(device))
    (greedy,) = greedy_search(model, tokenizer, encoded, lengths)
    passes = MaskPredictSteps()
    mask_predict_search(model, tokenizer, encoded, lengths, iterations=iterations, steps=passes)
    stop = [label(tokenizer, tokenizer.stop)] if greedy.finish_reason == "stop" else []
    text: list[str] = [label(tokenizer, token) for token in greedy.tokens] + stop
    if max(len(text), *(len(row) for row in passes.rows)) > LONGEST_TEXT:
        raise AudioError(f"{path}: gives more than {LONGEST_TEXT} tokens; choose less of it with --start and --duration.")
    return KnownTokens(
        tuple((*text[:known], *[None] * (len(text) - known)) for known in range(len(text) + 1)),
        tuple(tuple(None if token is None else label(tokenizer, token) for token in row) for row in passes.rows),
        model.nonautoregressive.configuration.lengths[0] == "alignment",
    )


def write(known: KnownTokens, output: Path, title: str) -> bool:
    """Draw the picture as a PNG, whole or not at all; return whether there was a font for every character of it.

    Raises:
        AsrError: the place cannot be written to.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(row) for row in (*known.autoregressive, *known.nonautoregressive))
    again = "CTC's text, all of it written anew" if known.rewritten else "all at once, then the least sure again"
    parts = (
        ("Autoregressive: one token after another", "step", known.autoregressive),
        (f"Non-autoregressive: {again}", "pass", known.nonautoregressive),
    )
    width = max(_SIDE + columns * _CELL + 2 * _MARGIN, 7.5)
    height = 0.55 + sum(0.85 + _CELL * len(rows) for _, _, rows in parts)
    with matplotlib.rc_context({"font.family": families(), "text.color": TEXT, "font.size": 9}):
        figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(_MARGIN, 0.36, title, fontsize=9.5, color=SOFT, va="center")
        top = 0.55
        for heading, unit, rows in parts:
            _draw(axes, top, heading, unit, rows)
            top += 0.85 + _CELL * len(rows)
        return save(figure, output, 120, "--decoders")


def _kept(before: Sequence[str | None], now: Sequence[str | None]) -> set[int]:
    """Columns of what was there before; in a text of another length, what a shortest list of changes leaves."""
    if len(before) == len(now):
        return {column for column, pair in enumerate(zip(before, now, strict=True)) if pair[0] == pair[1]}
    blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
    return {block.b + offset for block in blocks for offset in range(block.size)}


def _draw(axes: Any, top: float, heading: str, unit: str, rows: tuple[tuple[str | None, ...], ...]) -> None:
    """A row of cells for each step: grey is unknown, pale is known, full is what the step before gave."""
    from matplotlib.patches import Rectangle

    steps = len(rows) - 1
    axes.text(_MARGIN, top + 0.22, heading, fontsize=12, weight="bold", va="center")
    top += 0.5
    for n, row in enumerate(rows):
        y = top + n * _CELL
        name = "at the start" if n == 0 else f"after {unit} {n}" if n < steps else f"after {unit} {n}: text"
        axes.text(_MARGIN + _SIDE - 0.1, y + _CELL / 2, name, ha="right", va="center", fontsize=8, color=SOFT)
        kept = _kept(rows[n - 1], row) if n else {*range(len(row))}
        for column, token in enumerate(row):
            new = token is not None and column not in kept
            x = _MARGIN + _SIDE + column * _CELL
            face = "#eef0f4" if token is None else ACCENT if new else PALE
            axes.add_patch(Rectangle((x, y), _CELL * 0.92, _CELL * 0.9, facecolor=face, edgecolor=LINE, linewidth=0.4))
            if token is not None:
                ended = token[0] == "<" and token[-1] == ">" and len(token) > 2
                shown = "■" if ended else visible(token)
                colour = "white" if new else STOP if ended else TEXT
                size = 8.5 if len(shown) == 1 else 8.5 * 1.7 / (len(shown) + 0.6)
                axes.text(x + _CELL * 0.46, y + _CELL * 0.46, shown, ha="center", va="center", fontsize=size, color=colour)
