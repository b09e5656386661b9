from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.corpora import manifests
from asr.exceptions import ConfigurationError, CorpusError
from asr.model.configuration import ModelConfiguration
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.transcription import distillation
from asr.transcription.distillation import asked_for, distill
from asr.transcription.transcriber import load
from tests.search.multilingual import PROMPT, small_multilingual

FOUND = {
    800: Hypothesis("", (), (), 0.0, "stop"),
    1600: Hypothesis("what it heard", (5,), (-0.1,), -0.1, "stop"),
    3200: Hypothesis("As said.", (5,), (-0.1,), -0.1, "stop"),
    4800: Hypothesis("", (), (), 0.0, "stop"),
    6400: Hypothesis("on and", (5,), (-0.1,), -0.1, "length"),
}


class Teacher:
    checkpoint = SimpleNamespace(model=SimpleNamespace(configuration=ModelConfiguration()))

    def decode(self, samples: list[np.ndarray]) -> list[Hypothesis]:
        return [FOUND[len(each)] for each in samples]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(distillation, "load", lambda *_: Teacher())
    rows = []
    for number, (size, text) in enumerate([(1600, "said"), (6400, "long"), (3200, "as said"), (4800, "quiet"), (800, "broken")]):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(size, np.float32), 16_000)
        rows.append(json.dumps({"audio": f"{number}.wav", "text": text, "speaker": f"s{number}"}))
    path = tmp_path / "table.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_hypotheses_stand_in_place_of_the_transcripts(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = manifests.load(table)
    (tmp_path / "4.wav").write_bytes(b"damaged")  # between preparation and now
    monkeypatch.setattr(manifests, "load", lambda _: cuts)
    result = distill("teacher", table, tmp_path / "new" / "distilled.jsonl.gz", batch_size=2)
    monkeypatch.undo()
    # Capitals and marks are no other words.
    assert (result.written, result.changed, result.empty, result.unfinished) == (2, 1, 1, 1)
    assert "4.wav" in str(result.failures[0])
    assert len(result.failures) == 1
    found = {cut.supervisions[0].id: cut.supervisions[0] for cut in manifests.load(result.manifest)}
    assert {key: value.text for key, value in found.items()} == {"0": "what it heard", "2": "As said."}
    assert found["0"].custom == {"transcript": "said"}
    assert found["0"].speaker == "s0"


def test_another_language_is_asked_for_and_noted(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Teacher()
    teacher.checkpoint, teacher.options = small_multilingual(), DecodingOptions("autoregressive", beam_size=3)
    monkeypatch.setattr(distillation, "load", lambda *_: teacher)
    result = distill("teacher", table, tmp_path / "distilled.jsonl.gz", language="zh")
    assert teacher.options == DecodingOptions("autoregressive", beam_size=3, prompt=(PROMPT[0], "<|zh|>", *PROMPT[2:]))
    assert {cut.supervisions[0].language for cut in manifests.load(result.manifest)} == {"zh"}


def test_another_language_is_written_without_the_models_own_language_model() -> None:
    model = load("zh", "cpu", DecodingOptions(beam_size=1))
    assert model.options.language_model is not None
    options = asked_for(model, "en")
    assert (options.language_model, options.language_model_weight, options.length_bonus, options.stop_threshold) == (
        None,
        0,
        0,
        None,
    )
    assert (options.beam_size, options.prompt[1]) == (1, "<|en|>")
    assert asked_for(model, "zh").language_model is model.options.language_model
    model.options = replace(model.options, decoder="ctc")
    with pytest.raises(ConfigurationError, match="decoder 'ctc' cannot be asked for a language"):
        asked_for(model, "en")


def test_what_cannot_be_written_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"end it in \.jsonl\.gz"):
        distill("teacher", table, tmp_path / "distilled.jsonl")
