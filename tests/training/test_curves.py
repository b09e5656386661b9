"""The picture of a run is drawn from any log that training can leave."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from asr.training import curves


def step(number: int, **changes: float) -> dict[str, Any]:
    return {"kind": "step", "step": number, "attention": 5 / number, "ctc": 8 / number, **changes}


def validation(number: int, **changes: float) -> dict[str, Any]:
    return {"kind": "validation", "step": number, "loss": 1.0, "error_rate": 0.5, "ctc_error_rate": 0.75, **changes}


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        ([], set()),
        ([step(1)], {"attention decoder, training", "CTC, training"}),
        ([step(n, attention=0.0) for n in range(1, 900)], {"CTC, training"}),
        ([step(1), step(2, ctc=math.nan), validation(2)], {"attention decoder: 50.0 %", "CTC: 75.0 %", "joint, validation"}),
        ([step(1, attention=0.0), validation(1, error_rate=0.75)], {"CTC: 75.0 %", "joint, validation"}),
        ([step(1), validation(1, ctc_error_rate=math.nan)], {"attention decoder: 50.0 %"}),
        (
            [step(1, nonautoregressive=2.0), validation(1, nonautoregressive_error_rate=0.25)],
            {"non-autoregressive decoder: 25.0 %"},
        ),
    ],
)
def test_every_log_is_drawn(
    entries: list[dict[str, Any]], lines: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    drawn: dict[str, tuple[Any, Any]] = {}
    plot = Axes.plot

    def noted(axes: Axes, *values: Any, label: str, **style: Any) -> Any:
        drawn[label] = (values[0], values[1])
        return plot(axes, *values, label=label, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.draw(tmp_path / "log.jsonl", tmp_path / "curves.png", "a run")
    assert imread(tmp_path / "curves.png").shape[:2] == (504, 1320)
    assert lines <= set(drawn)
    if all(entry["kind"] == "step" for entry in entries):
        assert lines == set(drawn)
    # What is drawn in fewer points keeps its sum: windows of four steps here.
    if len(entries) > 800:
        places, means = drawn["CTC, training"]
        assert places[0] == 4
        assert means[0] == pytest.approx(sum(8 / n for n in range(1, 5)) / 4)
