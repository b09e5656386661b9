"""How far a model's confidence can be believed, and the two numbers that make it so.

A word's log-odds under the decoder are mapped by a straight line to log-odds of being right (Platt 1999, "Probabilistic
outputs for support vector machines"); the expected calibration error is that of Guo et al. 2017, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import files
from asr.configuration import dump
from asr.corpora import manifests
from asr.exceptions import ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.configuration import ConfidenceConfiguration
from asr.scoring.alignment import align
from asr.transcription.confidence import log_odds, word_scores
from asr.transcription.transcriber import Transcriber, load
from asr.transcription.words import spans, token_spans

BINS = 10
_HEADING = "## Confidence"


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        before: expected calibration error of the decoder's own probabilities on the held-aside half of the speakers'
            utterances, from 0 to 1.
        after: the same of the calibrated confidence.
        words: number of words in that half.
        right: share of them that is right.
    """

    settings: ConfidenceConfiguration
    before: float
    after: float
    words: int
    right: float

    def describe(self) -> str:
        """The measurement in a sentence."""
        return (
            f"expected calibration error {100 * self.after:.2f} % ({100 * self.before:.2f} % before calibration) on {self.words} "
            f"words of which {100 * self.right:.1f} % are right, {BINS} bins; slope {self.settings.slope:.3f}, "
            f"offset {self.settings.offset:.3f}"
        )


def calibrate(model: str, manifest: Path, device: str = "auto", batch_size: int = 16, write: bool = True) -> Calibration:
    """Fit a model's confidence on every other utterance of a manifest, measure it on the others, and store it.

    The numbers go to ``config.yaml`` of the checkpoint folder, the measurement into its model card.

    Raises:
        ConfigurationError: the utterances hold no right or no wrong word, so that nothing can be fitted.
        AsrError: the model, the manifest or an audio file cannot be used.
    """
    transcriber = load(model, device, None, batch_size)
    cuts = sorted(manifests.load(manifest), key=lambda cut: float(cut.duration))
    halves: tuple[list[tuple[float, bool]], list[tuple[float, bool]]] = ([], [])
    for first in range(0, len(cuts), batch_size):
        group = cuts[first : first + batch_size]
        samples = [files.read(cut.recording.sources[0].source, cut.start, cut.duration) for cut in group]
        references = [cut.supervisions[0].text or "" for cut in group]
        for number, words in enumerate(judged(transcriber, samples, references)):
            halves[(first + number) % 2].extend(words)
    (scores, right), (others, others_right) = (_arrays(half) for half in halves)
    if not len(scores) or right.all() or not right.any():
        raise ConfigurationError(f"{manifest}: has no right or no wrong word to fit confidence to; give more utterances.")
    settings = fit(scores, right)
    calibrated = 1 / (1 + np.exp(-(settings.slope * others + settings.offset)))
    result = Calibration(
        settings,
        expected_calibration_error(1 / (1 + np.exp(-others)), others_right),
        expected_calibration_error(calibrated, others_right),
        len(others),
        float(others_right.mean()),
    )
    folder = transcriber.checkpoint.folder
    if write and folder is not None:
        configuration = transcriber.checkpoint.model.configuration
        dump(configuration.model_copy(update={"confidence": settings}), folder / model_folder.CONFIGURATION)
        _write_card(folder / model_folder.CARD, f"{_HEADING}\n\nOn {manifest.name}, {result.describe()}.\n")
    return result


def judged(transcriber: Transcriber, samples: list[NDArray[np.float32]], references: list[str]) -> list[list[tuple[float, bool]]]:
    """For each utterance the log-odds of its hypothesis's words, and whether the reference has them."""
    checkpoint = transcriber.checkpoint
    tokenizers = [checkpoint.tokenizer] + ([checkpoint.ctc_tokenizer] if checkpoint.model.ctc is not None else [])
    found = []
    for hypothesis, reference in zip(transcriber.decode(samples), references, strict=True):
        words = spans(hypothesis.text)
        scores = word_scores(hypothesis, words, token_spans(hypothesis, *tokenizers))
        said = [plain(hypothesis.text[begin:end]) for begin, end in words]
        alignment = align([plain(reference[begin:end]) for begin, end in spans(reference)], said)
        right = [mark == "C" for mark, _, _, first, last in alignment.chunks for _ in range(first, last)]
        found.append([(log_odds(score), correct) for score, correct in zip(scores, right, strict=True)])
    return found


def plain(word: str) -> str:
    """A word without case and punctuation."""
    return "".join(character for character in word.casefold().replace("’", "'") if character.isalnum() or character == "'")


def fit(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> ConfidenceConfiguration:
    """Slope and offset of the most likely logistic function, by Newton's method.

    The targets are Platt's: a little less than 1 and more than 0, so that separable data has an answer.
    """
    positive, negative = int(right.sum()), int((~right).sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    inputs = np.stack((scores, np.ones_like(scores)), axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (predicted - target)
        curvature = (inputs * (predicted * (1 - predicted))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-9))
        if np.abs(step).max() < 1e-9:
            break
    # Of a decoder that knows nothing the line would be flat or fall; a confidence has to grow with the probability.
    return ConfidenceConfiguration(slope=max(float(weights[0]), 1e-3), offset=float(weights[1]))


def expected_calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean distance between confidence and share of right words, over bins of equal width, weighted by their words."""
    index = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = index == number
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    return float(error)


def _arrays(words: Iterable[tuple[float, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    listed = list(words)
    return np.array([score for score, _ in listed], dtype=np.float64), np.array([right for _, right in listed], dtype=bool)


def _write_card(card: Path, section: str) -> None:
    """Put a section at the end of a model card, in place of an earlier one of the same heading."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    before, _, after = text.partition(_HEADING)
    rest = after[after.find("\n## ") + 1 :] if "\n## " in after else ""
    card.write_text(f"{before.rstrip()}\n\n{section}" + (f"\n{rest}" if rest else ""), encoding="utf-8")
