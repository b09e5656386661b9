"""The course of a run as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# Part of the loss, its error rate of validation, its name, its colour in both pictures.
_PARTS = (
    ("attention", "error_rate", "attention decoder", "#2458c5"),
    ("ctc", "ctc_error_rate", "CTC", "#d07a1c"),
    ("nonautoregressive", "nonautoregressive_error_rate", "non-autoregressive decoder", "#7a3fb5"),
)
_POINTS = 200


def draw(log: Path, picture: Path, title: str) -> None:
    """Draw losses and error rates of a run's log over its steps, as a PNG.

    A line is the mean over a two-hundredth of the run, its shade the smallest and largest value there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    validations = [entry for entry in entries if entry["kind"] == "validation"]
    figure = Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    losses, errors = figure.subplots(1, 2, sharex=True)
    figure.suptitle(title, fontweight="bold")
    window = max(len(steps) // _POINTS, 1)
    for part, _, name, colour in _PARTS:
        if any(entry.get(part) for entry in steps):
            groups = [steps[n : n + window] for n in range(0, len(steps), window)]
            values = [[entry[part] for entry in group if math.isfinite(entry[part])] or [math.nan] for group in groups]
            places = [group[-1]["step"] for group in groups]
            losses.plot(places, [sum(each) / len(each) for each in values], color=colour, label=f"{name}, training")
            losses.fill_between(places, [*map(min, values)], [*map(max, values)], color=colour, alpha=0.15, linewidth=0)
    if validations:
        points = [validation["step"] for validation in validations]
        losses.plot(points, [validation["loss"] for validation in validations], "o-", color="#2c8a57", label="joint, validation")
    losses.set(title="loss", xlabel="step", ylabel="nats per token")
    alone = all(entry["error_rate"] == entry["ctc_error_rate"] for entry in validations)
    highest = 0.0
    for _, key, name, colour in _PARTS:
        found = [(v["step"], 100 * v[key]) for v in validations if math.isfinite(v.get(key, math.nan))]
        # Without a decoder both rates are CTC's.
        if found and not (alone and key == "error_rate"):
            highest = max(highest, *(rate for _, rate in found))
            errors.plot(*zip(*found, strict=True), "o-", color=colour, markersize=4, label=f"{name}: {found[-1][1]:.1f} %")
    errors.set(title="error rate of validation, greedy", xlabel="step", ylabel="%")
    if not highest:
        errors.text(0.5, 0.5, "no validation yet", transform=errors.transAxes, ha="center", color="#5b6778")
    for axes, top in ((losses, None), (errors, min(1.1 * highest, 150.0) or 100.0)):
        _style(axes, top)
    temporary = picture.with_suffix(".unfinished.png")
    figure.savefig(temporary, dpi=120)
    temporary.replace(picture)


def draw_perplexity(log: Path, picture: Path, title: str) -> None:
    """Draw a language model's perplexity over the steps of its log, as a PNG; a line as in ``draw``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step" and math.isfinite(entry["loss"])]
    validations = [entry for entry in entries if entry["kind"] == "validation"]
    figure = Figure(figsize=(7, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    window = max(len(steps) // _POINTS, 1)
    groups = [steps[n : n + window] for n in range(0, len(steps), window)]
    means = [math.exp(sum(entry["loss"] for entry in group) / len(group)) for group in groups]
    axes.plot([group[-1]["step"] for group in groups], means, color=_PARTS[0][3], label="training")
    found = [(entry["step"], entry["perplexity"]) for entry in validations]
    axes.plot(*zip(*found, strict=True), "o-", color="#2c8a57", label=f"held out: {found[-1][1]:.1f}")
    axes.set(title=f"{title}: perplexity", xlabel="step", ylabel="of a token")
    _style(axes, None)
    # From the bottom up it is the last part that matters, and that is small beside the first.
    axes.set(yscale="log", ylim=(1, None))
    temporary = picture.with_suffix(".unfinished.png")
    figure.savefig(temporary, dpi=120)
    temporary.replace(picture)


def _style(axes: Any, top: float | None) -> None:
    axes.set_ylim(bottom=0, top=top)
    axes.set_xlim(left=0)
    axes.grid(color="#dde2e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
