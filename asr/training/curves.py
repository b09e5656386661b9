"""The course of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def draw(log: Path, picture: Path, title: str) -> None:
    """Draw losses and error rates of a run's log over its steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    validations = [entry for entry in entries if entry["kind"] == "validation"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, errors = figure.subplots(1, 2)
    figure.suptitle(title)
    window = max(len(steps) // 200, 1)
    for key, label in (("attention", "attention"), ("ctc", "CTC")):
        values = [entry[key] for entry in steps]
        if any(values):
            smooth = [sum(values[n : n + window]) / len(values[n : n + window]) for n in range(0, len(values), window)]
            losses.plot([steps[n]["step"] for n in range(0, len(values), window)], smooth, label=f"{label}, training")
    losses.plot([v["step"] for v in validations], [v["loss"] for v in validations], "o-", label="joint, validation")
    losses.set(xlabel="step", ylabel="loss, nats per token")
    losses.set_ylim(bottom=0)
    losses.legend()
    for key, label in (("error_rate", "greedy search"), ("ctc_error_rate", "CTC greedy")):
        points = [(v["step"], 100 * v[key]) for v in validations if v[key] == v[key]]
        if points and not (key == "error_rate" and all(v["error_rate"] == v["ctc_error_rate"] for v in validations)):
            errors.plot(*zip(*points, strict=True), "o-", label=label)
    errors.set(xlabel="step", ylabel="error rate, %", title="validation")
    errors.set_ylim(bottom=0)
    errors.legend()
    temporary = picture.with_suffix(".unfinished.png")
    figure.savefig(temporary, dpi=120)
    temporary.replace(picture)
