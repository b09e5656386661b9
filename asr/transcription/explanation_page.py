"""An explanation as one HTML file that opens without a network.

The steps are written into the page as text; attention, features and posteriors are numbers of eight bits that a script
in the page draws, so that layers and heads can be chosen. The audio is in the page as FLAC.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr import __version__
from asr.audio.files import SAMPLE_RATE
from asr.exceptions import AsrError
from asr.transcription.explanation import Candidate, Explanation

_COLUMNS = 1200
ENDS = {
    "stop": "the stop token ended it",
    "length": "the bound on the length ended it",
    "repetition": "it repeated itself and was ended",
}


def write(explanation: Explanation, output: Path, model: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        AsrError: the place cannot be written to.
    """
    temporary = output.with_name(f".{output.name}.unfinished")
    try:
        temporary.write_text(page(explanation, model), encoding="utf-8")
        temporary.replace(output)
    except OSError as error:
        raise AsrError(f"{output}: cannot be written ({error.strerror}); give another --output.") from error


def page(explanation: Explanation, model: str) -> str:
    """The whole page.

    Args:
        explanation: what to show.
        model: name of the model, for the heading.
    """
    e = explanation
    packed = _Packed()
    packed.add("wave", _envelope(e.samples))
    packed.add("features", _scaled(e.features))
    for name, weights in (("cross", e.cross_attention), ("self", e.self_attention), ("encoder", e.encoder_attention)):
        packed.add_rows(name, weights)
    if e.ctc is not None:
        packed.add("ctc", np.round(255 * e.ctc.probabilities).astype(np.uint8))
    data = {
        "duration": e.duration,
        "shown": e.shown_seconds,
        "crossSeconds": e.cross_seconds,
        "encoderSeconds": e.encoder_seconds,
        "positionSeconds": e.position_seconds,
        "prompt": len(e.prompt),
        "inputs": [visible(token) for token in e.inputs],
        "tokens": [visible(token) for token in e.tokens],
        "ctc": None if e.ctc is None else {"symbols": [visible(each) for each in e.ctc.symbols], "path": e.ctc.path},
        "arrays": packed.index,
    }
    parts = {
        "TITLE": escape(e.hypothesis.text or e.path.name),
        "TEXT": escape(e.hypothesis.text) or "(no text)",
        "FACTS": escape(facts(e, model)),
        "WAY": _way(e),
        "AUDIO": _flac(e.samples),
        "LABELS": "".join(
            f'<button type="button" class="label" data-step="{n}" tabindex="{-1 if n else 0}">{_token(token)}</button>'
            for n, token in enumerate(e.tokens)
        ),
        "CTCLABELS": "".join(f"<span>{_token(symbol)}</span>" for symbol in e.ctc.symbols) if e.ctc else "",
        "CTCTEXT": escape(e.ctc.text) if e.ctc else "",
        "STEPS": "".join(_step(e, n) for n in range(len(e.steps))),
        "WITHOUT": " ".join(name for name, there in (("no-decoder", bool(e.steps)), ("no-ctc", e.ctc is not None)) if not there),
        "VERSION": escape(__version__),
        # "<" cannot end the script element when it is written as an escape, which JSON reads as the same character.
        "DATA": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "ARRAYS": packed.text(),
    }
    template = files("asr.transcription").joinpath("explanation.html").read_text(encoding="utf-8")
    head, *rest = template.split("@@")
    return head + "".join(parts[name] + after for name, after in zip(rest[::2], rest[1::2], strict=True))


def visible(token: str) -> str:
    """A token's text with its white space to be seen."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def is_special(token: str) -> bool:
    """Whether it is the name of a token that is no text, as ``<eos>``."""
    return len(token) > 2 and token[0] == "<" and token[-1] == ">"


class _Packed:
    """Arrays of the page in one compressed string; ``index`` says where each is."""

    def __init__(self) -> None:
        self.index: dict[str, Any] = {}
        self._bytes = bytearray()

    def add(self, name: str, values: NDArray[Any]) -> None:
        self._bytes += bytes(-len(self._bytes) % 4)
        self.index[name] = {"at": len(self._bytes), "shape": values.shape, "kind": str(values.dtype)}
        self._bytes += np.ascontiguousarray(values).tobytes()

    def add_rows(self, name: str, weights: NDArray[np.float32]) -> None:
        """Attention in eight bits, each row as shares of its largest weight, which stays a float."""
        if weights.size:
            largest = weights.max(axis=-1, keepdims=True).clip(min=1e-9)
            self.add(name, np.round(255 * weights / largest).astype(np.uint8))
            self.add(f"{name}Largest", largest[..., 0].astype(np.float32))

    def text(self) -> str:
        return base64.b64encode(zlib.compress(bytes(self._bytes), 9)).decode("ascii")


def _envelope(samples: NDArray[np.float32]) -> NDArray[np.int8]:
    """Least and largest sample of each of at most 1200 stretches, (stretches, 2), full scale at 127."""
    edges = np.linspace(0, len(samples), min(_COLUMNS, len(samples)) + 1).astype(int)[:-1]
    both = np.stack((np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)), axis=1)
    return np.round(127 * both / max(float(np.abs(samples).max()), 1e-9)).astype(np.int8)


def _scaled(features: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Features as shades; the faintest 1 % of the picture are all the darkest."""
    low, high = float(np.percentile(features, 1)), float(features.max())
    return np.round(255 * ((features - low) / max(high - low, 1e-9)).clip(0, 1)).astype(np.uint8)


def _flac(samples: NDArray[np.float32]) -> str:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")


def facts(e: Explanation, model: str) -> str:
    """A line on the file, the model and how the search ended."""
    tokens = len(e.hypothesis.tokens)
    how = f"{tokens} tokens, {ENDS[e.hypothesis.finish_reason]}" if e.steps else f"{tokens} tokens of CTC"
    return f"{e.path.name} · {e.duration:.2f} s · model {model} · {how}"


def way(e: Explanation) -> list[tuple[str, str, str, str]]:
    """The data's way with the sizes of this run: a place on the page, the stage, its size, and more about it."""
    layers, heads = e.encoder_attention.shape[:2]
    boxes = [
        ("sound", "Waveform", f"{len(e.samples):,} samples", f"{SAMPLE_RATE:,} a second"),
        (
            "sound",
            "Filterbank",
            f"{len(e.features):,} × {e.features.shape[1]}",
            f"mel energies each {1000 * e.frame_seconds:g} ms",
        ),
        ("encoder", "Encoder", f"{e.positions:,} × {e.width}", f"{layers} layers of {heads} heads"),
    ]
    if e.steps:
        layers, heads = e.cross_attention.shape[:2]
        boxes.append(("steps", "Decoder", f"{len(e.steps)} steps", f"{layers} layers of {heads} heads"))
    else:
        boxes.append(("sound", "CTC head", f"{e.positions:,} positions", "all at once"))
    boxes.append(("top", "Text", f"{len(e.hypothesis.text)} characters", f"{len(e.hypothesis.tokens)} tokens"))
    return boxes


def _way(e: Explanation) -> str:
    return "".join(
        f'<li><a href="#{anchor}"><b>{name}</b><span class="size">{size}</span><span class="soft">{more}</span></a></li>'
        for anchor, name, size, more in way(e)
    )


def _token(token: str) -> str:
    if is_special(token):
        return f'<span class="special">{escape(token)}</span>'
    return escape(visible(token)).replace("␣", '<span class="space">␣</span>') or '<span class="soft">(bound)</span>'


def _step(e: Explanation, n: int) -> str:
    step = e.steps[n]
    read = e.inputs[: len(e.prompt) + n]
    so_far = "".join(
        f'<span class="t{" new" if place == len(read) - 1 else ""}">{_token(token)}</span>' for place, token in enumerate(read)
    )
    chosen = step.chosen.token if step.chosen else None
    shown: Sequence[Candidate] = step.best
    if step.chosen is not None and chosen not in [each.token for each in step.best]:
        shown = (*step.best[:-1], step.chosen)
    candidates = "".join(_candidate(each, each.token == chosen) for each in shown)
    return (
        f'<li class="step" data-step="{n}"><span class="number">{n + 1}</span><div class="so-far">{so_far}</div>'
        f'<ul class="candidates">{candidates}</ul></li>'
    )


def _candidate(candidate: Candidate, chosen: bool) -> str:
    percent = 100 * candidate.probability
    figure = f"{percent:.1f}%" if percent >= 0.05 else "<0.1%"
    return (
        f'<li class="candidate{" chosen" if chosen else ""}" style="--p:{percent:.2f}%" title="{candidate.probability:.6f}">'
        f'<span class="what">{_token(candidate.text)}{"<span class=mark>chosen</span>" if chosen else ""}</span>'
        f'<span class="p">{escape(figure)}</span></li>'
    )
