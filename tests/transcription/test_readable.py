"""A training set with readable text, of the project's own recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.corpora import manifests
from asr.exceptions import CorpusError
from asr.text.english import normalize
from asr.transcription.readable import write_table
from asr.transcription.transcriber import Transcriber

SPOKEN = "WELCOME THIS RECORDING WAS MADE FOR THE PROJECT AND EVERY WORD OF IT SHOULD COME OUT WRONG"


def test_the_words_stay_and_the_marks_are_heard(english: Transcriber, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "spoken.csv"
    table.write_text(f"audio,text,id\n{data / 'welcome.wav'},{SPOKEN},one\n", encoding="utf-8")
    output = tmp_path / "new" / "readable.jsonl"
    assert write_table(english, [table], output) == 1
    row = json.loads(output.read_text(encoding="utf-8"))
    assert normalize(row["text"]) == normalize(SPOKEN)
    assert row["text"].startswith("Welcome")
    assert row["text"].endswith("out wrong.")
    [cut] = manifests.load(output)
    assert (cut.supervisions[0].id, cut.supervisions[0].text) == ("one", row["text"])
    assert [path.name for path in output.parent.iterdir()] == ["readable.jsonl"]


def test_a_place_that_cannot_be_written_to(english: Transcriber, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "spoken.csv"
    table.write_text(f"audio,text\n{data / 'welcome.wav'},{SPOKEN}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be written"):
        write_table(english, [table], table / "readable.jsonl")
