"""An explanation as one still picture: the same content as the page, with layers and heads averaged."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.exceptions import AsrError
from asr.transcription.explanation import Array, Explanation
from asr.transcription.explanation_page import facts, is_special, visible, way

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
_WIDTH, _LEFT, _RIGHT, _MARGIN = 13.0, 1.5, 0.35, 0.3
TEXT, SOFT, LINE, ACCENT, PALE, STOP = "#1b2430", "#5b6778", "#dde2e9", "#2458c5", "#e4ecfc", "#a3182c"
_BAR = "#c9dbfa"
# Families that have Han characters; matplotlib takes the first one that has a character.
_FAMILIES = (
    "Inter",
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "SimHei",
)
_LETTERS_SO_FAR = 62


def write(explanation: Explanation, output: Path, model: str) -> bool:
    """Draw the picture as a PNG, whole or not at all; return whether there was a font for every character of it.

    Raises:
        AsrError: the place cannot be written to.
    """
    import matplotlib

    with matplotlib.rc_context({"font.family": families(), "text.color": TEXT, "font.size": 9.5, "axes.edgecolor": LINE}):
        return save(_Sheet(explanation, model).figure, output, 110, "--png")


def save(figure: Figure, output: Path, dpi: int, option: str) -> bool:
    """Write a figure whole or not at all; return whether there was a font for every character of it.

    Raises:
        AsrError: the place, which ``option`` named, cannot be written to.
    """
    temporary = output.with_name(f".{output.name}.unfinished")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            figure.savefig(temporary, format="png", dpi=dpi)
            temporary.replace(output)
        except OSError as error:
            raise AsrError(f"{output}: cannot be written ({error.strerror}); give another {option}.") from error
    # matplotlib says so of each character, and draws a box.
    others = [each for each in said if "missing from font" not in str(each.message)]
    for each in others:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return len(others) == len(said)


def families() -> list[str]:
    """Installed fonts in the order in which a character is looked for; with Han characters where there is one."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return [name for name in _FAMILIES if name in installed]


class _Sheet:
    """A figure that is filled from the top; places are in inches."""

    def __init__(self, explanation: Explanation, model: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.explanation = e = explanation
        steps = len(e.steps)
        self.row = 0.22 if steps <= 34 else 0.17
        self.ctc_height = 0.16 * len(e.ctc.symbols) if e.ctc else 0.0
        self.square = (_WIDTH - 2 * _LEFT - _RIGHT) / 2
        self.height = 2.3 + 2.5 + self.row * steps + (self.ctc_height + 0.9 if e.ctc else 0) + self.square + 2.0
        self.height += 0.8 + 0.34 * steps if steps else 0
        self.figure = Figure(figsize=(_WIDTH, self.height), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.top = _MARGIN
        self._heading(model)
        self._sound()
        if steps:
            self._steps()
        self._self_attention()

    def axes(self, left: float, height: float, width: float | None = None, below: float = 0.08) -> Any:
        """Axes under what there is, without ticks."""
        axes = self.beside(left, height, width)
        self.top += height + below
        return axes

    def beside(self, left: float, height: float, width: float | None = None) -> Any:
        """Axes at the present height, which stays."""
        width = _WIDTH - left - _RIGHT if width is None else width
        bottom = self.height - self.top - height
        axes = self.figure.add_axes(
            (left / _WIDTH, bottom / self.height, width / _WIDTH, height / self.height), xticks=[], yticks=[]
        )
        axes.tick_params(length=0, colors=SOFT)
        return axes

    def write(self, text: str, left: float, size: float, **style: Any) -> None:
        self.figure.text(left / _WIDTH, 1 - self.top / self.height, text, fontsize=size, va="top", **style)
        self.top += size / 72 * 1.6

    def _heading(self, model: str) -> None:
        e = self.explanation
        text = e.hypothesis.text or "(no text)"
        self.write(_fitting(text, 110), _MARGIN, 15, weight="bold")
        self.write(facts(e, model), _MARGIN, 9.5, color=SOFT)
        self.top += 0.1
        boxes = way(e)
        axes = self.axes(_MARGIN, 0.85, _WIDTH - 2 * _MARGIN, below=0.35)
        axes.axis("off")
        axes.set(xlim=(0, len(boxes)), ylim=(0, 1))
        for n, (_, name, size, more) in enumerate(boxes):
            _box(axes, n + 0.04, 0.02, 0.84, 0.96, "white", LINE)
            for y, content, style in (
                (0.76, name, {"weight": "bold"}),
                (0.47, size, {"color": ACCENT, "weight": "bold"}),
                (0.2, more, {"color": SOFT, "fontsize": 8.5}),
            ):
                axes.text(n + 0.1, y, content, va="center", **style)
            if n:
                axes.annotate("", (n + 0.03, 0.5), (n - 0.11, 0.5), arrowprops={"arrowstyle": "->", "color": SOFT})

    def _sound(self) -> None:
        e = self.explanation
        self._title("What was heard" + (", and where each step listened (cross-attention)" if e.steps else ""))
        shown = e.shown_seconds
        axes = self.axes(_LEFT, 0.6)
        axes.plot(np.arange(len(e.samples)) / 16000, e.samples, color=ACCENT, linewidth=0.3)
        axes.set(xlim=(0, shown))
        axes.axis("off")
        axes = self.axes(_LEFT, 1.25)
        low = float(np.percentile(e.features, 1))
        axes.imshow(
            e.features.T, origin="lower", aspect="auto", cmap="magma", vmin=low, extent=(0, shown, 0, 1), interpolation="nearest"
        )
        axes.set(xlim=(0, shown))
        axes.set_ylabel(f"{e.features.shape[1]} mels", rotation=0, ha="right", va="center", color=SOFT)
        if e.steps:
            rows = mean(e.cross_attention)[len(e.prompt) - 1 :, :-1]
            # Moments on which heads rest would outshine all else.
            full = np.maximum(np.quantile(rows, 0.98, axis=1, keepdims=True), rows.max(axis=1, keepdims=True) / 12)
            axes = self.axes(_LEFT, self.row * len(e.steps))
            self._rows(axes, rows / full, e.cross_seconds, "Blues", [*e.tokens], 8.5)
        if e.ctc:
            axes = self.axes(_LEFT, self.ctc_height)
            self._rows(axes, e.ctc.probabilities, e.position_seconds, "Oranges", [*e.ctc.symbols], 7.5)
            axes = self.axes(_LEFT, 0.36)
            axes.set(xlim=(0, shown), ylim=(0, 1))
            axes.set_ylabel("CTC path", rotation=0, ha="right", va="center", color=SOFT)
            emitted = [n for n, token in enumerate(e.ctc.path) if token and (n == 0 or token != e.ctc.path[n - 1])]
            for place, n in enumerate(emitted):
                # Neighbours take turns on two lines, so that they do not touch.
                axes.text(
                    (n + 0.5) * e.position_seconds,
                    0.72 - 0.46 * (place % 2),
                    visible(e.ctc.symbols[e.ctc.path[n]]),
                    ha="center",
                    va="center",
                    fontsize=8.5,
                )
        # The lowest axes carry the seconds of all.
        axes.set_xticks(np.arange(0, shown + 1e-6, 0.5 if shown < 12 else 2))
        axes.set_xlabel("seconds; the dashed line is the end of the recording", color=SOFT)
        for each in self.figure.axes[1:]:
            each.axvline(e.duration, color=SOFT, linestyle="--", linewidth=0.8)
        self.top += 0.6

    def _rows(self, axes: Any, rows: Array, seconds: float, colours: str, labels: list[str], size: float) -> None:
        axes.imshow(
            rows,
            aspect="auto",
            cmap=colours,
            vmin=0,
            vmax=1,
            extent=(0, rows.shape[1] * seconds, len(rows), 0),
            interpolation="nearest",
        )
        axes.set(xlim=(0, self.explanation.shown_seconds))
        axes.set_yticks(np.arange(len(rows)) + 0.5, [_fitting(visible(each), 16) for each in labels], fontsize=size)
        for tick, token in zip(axes.get_yticklabels(), labels, strict=True):
            tick.set_color(STOP if is_special(token) else TEXT)
        axes.hlines(np.arange(1, len(rows)), 0, rows.shape[1] * seconds, color="white", linewidth=1)

    def _steps(self) -> None:
        e = self.explanation
        self._title("One step after another: what was read, and the five most probable next tokens")
        axes = self.axes(_MARGIN, 0.34 * len(e.steps), _WIDTH - 2 * _MARGIN, below=0.35)
        axes.axis("off")
        axes.set(xlim=(0, 12.4), ylim=(len(e.steps), 0))
        for n, step in enumerate(e.steps):
            axes.text(0.25, n + 0.5, str(n + 1), ha="right", va="center", color=SOFT, fontsize=8.5)
            read = "".join(visible(token) for token in e.inputs[: len(e.prompt) + n])
            axes.text(5.0, n + 0.5, _ending(read, _LETTERS_SO_FAR), ha="right", va="center", fontsize=8.5)
            for place, candidate in enumerate(step.best):
                chosen = step.chosen is not None and candidate.token == step.chosen.token
                left = 5.2 + place * 1.44
                _box(axes, left, n + 0.06, 1.36, 0.88, PALE if chosen else "white", ACCENT if chosen else LINE)
                axes.fill_between(
                    (left, left + 1.36 * candidate.probability), n + 0.82, n + 0.92, color=ACCENT if chosen else "#c9dbfa"
                )
                colour = STOP if is_special(candidate.text) else TEXT
                what = _fitting(visible(candidate.text), 11)
                axes.text(left + 0.07, n + 0.46, what, va="center", fontsize=8.5, color=colour, weight="bold" if chosen else None)
                figure = f"{100 * candidate.probability:.1f}%"
                axes.text(left + 1.3, n + 0.46, figure, va="center", ha="right", fontsize=7.5, color=SOFT)

    def _self_attention(self) -> None:
        e = self.explanation
        self._title("Self-attention: masked in the decoder, a triangle" if e.steps else "Self-attention of the encoder")
        if e.steps:
            self.figure.text(
                (2 * _LEFT + self.square) / _WIDTH, 1 - (self.top - 0.3) / self.height, "and open in the encoder", fontsize=11.5,
                va="top", weight="bold",
            )  # fmt: skip
            self.top += 0.9
            weights = mean(e.self_attention)
            hidden = np.ma.array(
                weights / weights.max(axis=1, keepdims=True), mask=np.triu(np.ones(weights.shape, dtype=bool), 1)
            )
            axes = self.beside(_LEFT, self.square, self.square)
            axes.imshow(hidden, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            axes.text(0.97, 0.96, "the future is masked", transform=axes.transAxes, ha="right", va="top", color=SOFT)
            every = math.ceil(len(e.inputs) / 40)
            places = range(0, len(e.inputs), every)
            names = [_fitting(visible(e.inputs[place]), 14) for place in places]
            axes.set_yticks(places, names, fontsize=8)
            axes.xaxis.tick_top()
            axes.set_xticks(places, names, fontsize=8, rotation=60, ha="left", va="bottom", rotation_mode="anchor")
        weights = mean(e.encoder_attention)[:, :-1]
        seconds = len(weights) * e.encoder_seconds
        axes = self.beside(2 * _LEFT + self.square if e.steps else _LEFT, self.square, self.square)
        shades = np.sqrt(weights / weights.max(axis=1, keepdims=True))
        axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, extent=(0, seconds, seconds, 0), interpolation="nearest")
        ticks = np.arange(0, seconds, 1 if seconds < 12 else 5)
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set_xlabel("gathered from, seconds", color=SOFT)
        axes.set_ylabel("at, seconds", color=SOFT)

    def _title(self, text: str) -> None:
        self.write(text, _MARGIN, 11.5, weight="bold")
        self.top += 0.05


def mean(weights: Array) -> Array:
    """The mean over layers and heads, (layers, heads, rows, columns) -> (rows, columns)."""
    averaged: Array = weights.mean(axis=(0, 1))
    return averaged


def _box(axes: Any, left: float, top: float, width: float, height: float, face: str, edge: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), width, height, facecolor=face, edgecolor=edge, linewidth=0.9))


def _fitting(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _ending(text: str, letters: int) -> str:
    return text if len(text) <= letters else "…" + text[1 - letters :]
