from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.corpora import table
from asr.exceptions import ConfigurationError, CorpusError
from asr.synthesis import corpus
from asr.synthesis.corpus import cast, pack, read_table, synthesize, trim

SENTENCES = ["今天天气很好。", "我们去公园吧！", "你吃饭了吗？", "机器学习", "再见，朋友。"]


class ToneModel:
    """In place of Kokoro: a tone of half a second with silence around it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def speak(self, phonemes: str, voice: np.ndarray, speed: float) -> np.ndarray:
        self.said.append(phonemes)
        tone = np.sin(np.arange(12_000) / 10, dtype=np.float32) * float(voice[0, 0])
        return np.pad(tone, (9_600, 9_600))


@pytest.fixture
def voices() -> dict[str, np.ndarray]:
    return {name: np.full((10, 256), 0.1 + number / 10, dtype=np.float32) for number, name in enumerate(("zf", "zm", "af"))}


@pytest.fixture(autouse=True)
def _plain_phonemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "phonemes", lambda text: text)


def run(model: Any, sentences: list[str], voices: dict[str, np.ndarray], output: Path, hours: float = 1.0) -> None:
    for _ in synthesize(model, sentences, voices, ["af"], output, hours):
        pass


def test_interrupted_synthesis_goes_on_where_it_stopped(tmp_path: Path, voices: dict[str, np.ndarray]) -> None:
    run(ToneModel(), SENTENCES, voices, tmp_path / "whole")
    first = ToneModel()
    run(first, SENTENCES[:2], voices, tmp_path / "parts")
    with (tmp_path / "parts" / "table.jsonl").open("a") as file:
        file.write('{"id": "0000002", "aud')  # cut off while it was written
    second = ToneModel()
    run(second, SENTENCES, voices, tmp_path / "parts")
    assert first.said + second.said == SENTENCES
    assert (tmp_path / "parts" / "table.jsonl").read_text() == (tmp_path / "whole" / "table.jsonl").read_text()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "table.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["今天天气很好", "我们去公园吧", "你吃饭了吗", "机器学习", "再见朋友"]
    assert [row["written"] for row in rows] == SENTENCES


def test_table_is_a_corpus_and_packs_to_shar(tmp_path: Path, voices: dict[str, np.ndarray]) -> None:
    from lhotse import CutSet

    run(ToneModel(), SENTENCES, voices, tmp_path)
    cuts = table.read(tmp_path / "table.jsonl")
    shards = pack(tmp_path, shard_size=2)
    assert [shard.name for shard in shards] == [f"cuts.{number:06d}.jsonl.gz" for number in range(3)]
    packed = CutSet.from_shar(in_dir=tmp_path / "shar")
    for cut, shard_cut in zip(cuts, packed, strict=True):
        assert shard_cut.id == cut.id
        assert shard_cut.supervisions[0].text == cut.supervisions[0].text
        np.testing.assert_allclose(shard_cut.load_audio(), cut.load_audio(), atol=1e-4)
    # More sentences: what is complete stays, the last shard is made again.
    before = (tmp_path / "shar" / "cuts.000000.jsonl.gz").stat().st_mtime_ns
    run(ToneModel(), [*SENTENCES, "多一句话"], voices, tmp_path)
    assert len(pack(tmp_path, shard_size=2)) == 3
    assert (tmp_path / "shar" / "cuts.000000.jsonl.gz").stat().st_mtime_ns == before
    assert len(list(CutSet.from_shar(in_dir=tmp_path / "shar"))) == 6


def test_it_stops_at_the_hours_asked_for(tmp_path: Path, voices: dict[str, np.ndarray]) -> None:
    model = ToneModel()
    run(model, SENTENCES, voices, tmp_path, hours=1.5 / 3600)
    total = sum(row["duration"] for row in read_table(tmp_path / "table.jsonl").values())
    assert 1.5 <= total < 1.5 + 2
    assert len(model.said) < len(SENTENCES)


def test_castings_are_varied_and_repeatable() -> None:
    drawn = [cast(0, index, ["a", "b", "c"], ["x", "y"]) for index in range(400)]
    assert drawn[7] == cast(0, 7, ["a", "b", "c"], ["x", "y"])
    assert 0.4 < np.mean([bool(casting.second) for casting in drawn]) < 0.6
    assert 0.3 < np.mean([bool(casting.timbre) for casting in drawn]) < 0.5
    assert all(casting.second != casting.voice and 0.8 <= casting.speed <= 1.25 for casting in drawn)
    assert {casting.voice for casting in drawn} == {"a", "b", "c"}
    assert not cast(0, 1, ["a"], []).second


def test_silence_around_speech_is_trimmed_to_a_margin() -> None:
    samples = np.zeros(16_000, dtype=np.float32)
    samples[6_000:9_000] = 0.5
    assert len(trim(samples, margin=0.1)) == 3_000 + 2 * 1_600
    assert len(trim(samples[5_900:9_100], margin=0.1)) == 3_200


def test_mistakes_are_one_sentence(tmp_path: Path, voices: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigurationError, match="no voice is left"):
        next(synthesize(ToneModel(), SENTENCES, voices, list(voices), tmp_path, 1.0))  # type: ignore[arg-type]
    (tmp_path / "table.jsonl").write_text('{"audio": "a.wav", "text": "a"}\n')
    with pytest.raises(CorpusError, match=r"table\.jsonl, line 1"):
        read_table(tmp_path / "table.jsonl")
