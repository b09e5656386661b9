"""Confidence is calibrated against data whose probabilities are known, and against a library's logistic regression."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from asr import pretrained
from asr.exceptions import ConfigurationError
from asr.transcription.calibration import calibrate, expected_calibration_error, fit, plain
from asr.transcription.confidence import log_odds
from asr.transcription.transcriber import load


def test_the_fit_is_the_truth_that_data_was_drawn_from() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(2, 2, 40000)
    right = generator.random(40000) < 1 / (1 + np.exp(-(0.4 * scores - 0.7)))
    settings = fit(scores, right)
    assert settings.slope == pytest.approx(0.4, abs=0.03)
    assert settings.offset == pytest.approx(-0.7, abs=0.05)
    linear = pytest.importorskip("sklearn.linear_model")
    reference = linear.LogisticRegression(C=1e9).fit(scores[:, None], right)
    assert settings.slope == pytest.approx(reference.coef_[0, 0], abs=1e-3)
    assert settings.offset == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_separable_data_has_a_finite_fit() -> None:
    settings = fit(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0 < settings.slope < 100


def test_expected_calibration_error_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    right = np.array([True, True, True, False, False, False])
    assert expected_calibration_error(confidences, right) == pytest.approx((4 * 0.2 + 2 * 0.15) / 6)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert plain('"Don’t!"') == plain("don't")
    assert log_odds(-1e9) == pytest.approx(-log_odds(0.0))


def test_calibrating_a_model_writes_its_configuration_and_card(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pretrained.find("en"), folder)
    said = "welcome this recording was made for the project and every word of it should come out right"
    rows = [
        json.dumps({"id": f"u{number}", "audio": str(data.resolve() / "welcome.wav"), "text": text})
        for number, text in enumerate((f"{said[:-5]} wrong", said, said))
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
    result = calibrate(str(folder), tmp_path / "t.jsonl")
    assert result.words == 17
    transcriber = load(folder)
    assert transcriber.checkpoint.model.configuration.confidence == result.settings
    calibrate(str(folder), tmp_path / "t.jsonl")
    card = (folder / "README.md").read_text()
    assert card.count("## Confidence") == 1
    assert card.startswith("# en")
    (tmp_path / "t.jsonl").write_text(rows[1] + "\n" + rows[2] + "\n")
    with pytest.raises(ConfigurationError, match="no right or no wrong word"):
        calibrate(str(folder), tmp_path / "t.jsonl", write=False)
