"""Each recording goes to the model of its language; Mandarin is written as it is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from asr import pretrained
from asr.audio import files
from asr.cli import app
from asr.exceptions import AudioError, ConfigurationError
from asr.search.hypothesis import Hypothesis
from asr.search.language import HeardLanguage
from asr.transcription import languages, listening, transcriber
from asr.transcription.languages import Polyglot, written
from asr.transcription.recordings import Recording
from asr.transcription.transcript import Failure, Transcript, TranscriptSegment, Word

MANDARIN = pytest.mark.skipif("zh" not in pretrained.languages(), reason="there is no embedded Mandarin model")


class Fixed:
    """In place of a transcriber: says its language's name, and remembers what it was given together."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.runs: list[list[str]] = []

    def detect_language(self, samples: np.ndarray, among: Iterable[str], handicap: float) -> HeardLanguage:
        """Loud speech is Mandarin."""
        assert self.code == "zh"
        assert list(among) == ["en", "zh"]
        return HeardLanguage("zh" if float(np.abs(samples).max()) > 0.5 else "en", 1.0)

    def transcribe_all(
        self, recordings: Iterable[Recording], on_progress: Callable[[float], None] | None = None
    ) -> Iterator[Transcript]:
        self.runs.append([])
        for recording in recordings:
            self.runs[-1].append(recording.path.name)
            yield Transcript(recording.path, self.code, 1.0, ())


def test_recordings_keep_their_order_and_models_are_loaded_once(tmp_path: Path) -> None:
    for name, level in {"a": 0.1, "b": 0.2, "c": 0.9, "d": 0.8, "f": 0.1}.items():
        soundfile.write(tmp_path / f"{name}.wav", np.full(8000, level), 16_000)
    (tmp_path / "e.wav").write_bytes(b"no sound")
    models: list[Fixed] = []

    def load(code: str) -> Any:
        models.append(Fixed(code))
        return models[-1]

    polyglot = Polyglot(load, ["en", "zh"], "zh")
    results = list(polyglot.transcribe_all(tmp_path / f"{name}.wav" for name in "abcdef"))
    assert [result.path.stem for result in results] == list("abcdef")
    assert [getattr(result, "text", None) for result in results] == ["en", "en", "zh", "zh", None, "en"]
    assert isinstance(results[4], Failure)
    assert sorted(model.code for model in models) == ["en", "zh"]
    [english] = (model for model in models if model.code == "en")
    assert english.runs == [["a.wav", "b.wav"], ["f.wav"]]
    assert polyglot.transcribe(tmp_path / "c.wav").text == "zh"
    with pytest.raises(AudioError):
        polyglot.transcribe(tmp_path / "e.wav")


def test_a_model_that_cannot_search_as_asked_still_listens_and_fails_its_own_recordings_alone(tmp_path: Path) -> None:
    for name, level in {"a": 0.1, "b": 0.9, "c": 0.2}.items():
        soundfile.write(tmp_path / f"{name}.wav", np.full(8000, level), 16_000)
    asked: list[str] = []

    def load(code: str) -> Any:
        asked.append(code)
        if code == "zh":
            raise ConfigurationError("the model has no CTC head.")
        return Fixed(code)

    listener: Any = Fixed("zh")
    results = list(
        Polyglot(load, ["en", "zh"], "zh", lambda: listener).transcribe_all(tmp_path / f"{name}.wav" for name in "abc")
    )
    assert [getattr(result, "text", None) for result in results] == ["en", None, "en"]
    assert isinstance(results[1], Failure)
    assert str(results[1].error) == f"{tmp_path / 'b.wav'}: language zh: the model has no CTC head."
    assert sorted(asked) == ["en", "zh"]


def test_where_no_model_can_search_as_asked_nothing_is_listened_to(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1), 16_000)

    def load(code: str) -> Any:
        raise ConfigurationError("beam size 0 is not possible.")

    polyglot = Polyglot(load, ["en", "zh"], "zh", lambda: pytest.fail("loaded"))
    with pytest.raises(ConfigurationError, match="language zh: beam size 0"):
        polyglot.identify(Recording(tmp_path / "a.wav"))


@pytest.mark.parametrize("silent", [False, True])
def test_eight_seconds_are_listened_to_from_the_first_sound(tmp_path: Path, silent: bool) -> None:
    class Listener:
        def detect_language(self, samples: np.ndarray, among: Iterable[str], handicap: float) -> HeardLanguage:
            assert len(samples) == 8 * 16_000
            assert samples[0] != 0
            return HeardLanguage("zh", 0.9)

    models: dict[str, Any] = {"zh": Listener()}
    soundfile.write(tmp_path / "a.wav", np.pad(np.full(200_000, 0.0 if silent else 0.3), (16_000, 0)), 16_000)
    heard = Polyglot(lambda code: models[code], ["en", "zh"], "zh").identify(Recording(tmp_path / "a.wav"))
    assert heard == ("en" if silent else "zh")


def test_only_embedded_languages_are_known() -> None:
    with pytest.raises(ConfigurationError, match="language 'fr' has no embedded model"):
        languages.load(lambda name: pytest.fail(name), "fr")


@MANDARIN
def test_without_a_model_that_hears_languages_one_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # The English model has tokens of languages too, but they are untrained.
    monkeypatch.setattr(pretrained, "languages", lambda: {"en": "en", "fr": "en"})
    with pytest.raises(ConfigurationError, match="no embedded model tells en, fr apart; name the language with --language"):
        languages.load(lambda name: pytest.fail(name))


def test_numbers_and_script_are_written_as_wanted() -> None:
    words = (Word("机", 0.0, 0.2, 0.9), Word("器，", 0.2, 0.4, 0.8), Word("二", 0.4, 0.5, 0.9), Word("十", 0.5, 0.6, 0.7))
    hypothesis = Hypothesis("机器，二十年", (), (), 0.0, "stop")
    transcript = Transcript(Path("a.wav"), "机器，二十年", 1.0, (TranscriptSegment(0.0, 1.0, hypothesis, words),))
    assert written(transcript) is transcript
    result = written(transcript, "digits", "traditional")
    assert result.text == result.segments[0].text == "機器，20年"
    assert [(word.text, word.start) for word in result.words] == [("機", 0.0), ("器，", 0.2), ("二", 0.4), ("十", 0.5)]


def test_embedded_models_are_found_by_language() -> None:
    found = pretrained.languages()
    assert found["en"] == "en"
    assert set(found.values()) <= set(pretrained.names())


@MANDARIN
def test_samples_are_told_apart(data: Path) -> None:
    polyglot = languages.load(lambda name: transcriber.load(name, "cpu"))
    assert isinstance(polyglot, Polyglot)
    heard = {
        name: polyglot.identify(Recording(data / f"{name}.wav"))
        for name in ("welcome", "weather", "机器学习", "天气", "空调", "上班")
    }
    assert heard == {"welcome": "en", "weather": "en", "机器学习": "zh", "天气": "zh", "空调": "zh", "上班": "zh"}


@MANDARIN
def test_each_sentence_is_heard_in_its_language(data: Path) -> None:
    polyglot = languages.load(lambda name: transcriber.load(name, "cpu"))
    pause = np.zeros(16000, np.float32)
    sounds = [files.read(data / f"{name}.wav") for name in ("weather", "机器学习", "weather")]
    whole = np.concatenate([part for sound in sounds for part in (sound, pause)])
    blocks = (whole[at : at + 1600] for at in range(0, len(whole), 1600))
    texts = [segment.text for segment in listening.listen(polyglot, blocks)]
    chinese = [number for number, text in enumerate(texts) if "机器学习" in text]
    assert len(chinese) == 1
    english = [text for number, text in enumerate(texts) if number not in chinese]
    assert "".join(english).isascii()
    assert "light wind" in " ".join(english[: chinese[0]])
    assert "light wind" in " ".join(english[chinese[0] :])


@MANDARIN
def test_a_listener_is_told_at_once_what_a_model_cannot_do(data: Path) -> None:
    # English has a CTC head and Mandarin has none; named alone, English is written.
    arguments = ["listen", "--input", str(data / "weather.wav"), "--decoder", "ctc"]
    result = CliRunner().invoke(app, [*arguments, "--language", "auto"])
    assert not result.stdout
    assert isinstance(result.exception, ConfigurationError)
    assert re.fullmatch(r"language zh: .*, or name the language that is spoken with --language\.", str(result.exception))
    assert CliRunner().invoke(app, arguments).stdout


@MANDARIN
@pytest.mark.parametrize("option", [[], ["--language", "zh"]])
def test_machine_learning(data: Path, option: list[str]) -> None:
    result = CliRunner().invoke(app, ["transcribe", str(data / "机器学习.wav"), *option])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip().rstrip("。") == "机器学习"


@MANDARIN
def test_machine_learning_in_traditional_characters(data: Path) -> None:
    arguments = ["transcribe", str(data / "机器学习.wav"), "--language", "zh", "--script", "traditional"]
    assert CliRunner().invoke(app, arguments).stdout.strip().rstrip("。") == "機器學習"


@MANDARIN
def test_real_speech_is_told_apart(corpora: Path) -> None:
    polyglot = languages.load(lambda name: transcriber.load(name, "cpu"))
    assert isinstance(polyglot, Polyglot)
    paths = [line.split("\t")[0] for line in (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    for code, folder in {"en": "LibriSpeech/dev-extra/", "zh": "data_aishell/wav/dev/"}.items():
        found = [path for path in paths if path.startswith(folder)]
        clips = found[:: len(found) // 20][:20]
        heard = [polyglot.identify(Recording(corpora / path)) for path in clips]
        assert heard.count(code) >= 19
